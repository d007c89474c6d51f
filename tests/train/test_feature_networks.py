"""Feature networks: formulas and contracts on random weights, no network. test_weights.py has the real ones."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as functional
from torch import nn

import train
from allosr2_core.errors import AlloSR2Error
from train.perceptual.distances import DISTANCES
from train.perceptual.networks import HEDVGG16, STLPIPS, EfficientNetLite, FeatureNetwork
from train.perceptual.networks.base import unit_normalise
from train.perceptual.networks.efficientnet import LITE_BN_EPS, SamePadConv2d, fold_batch_norm, lite_blocks, lite_state
from train.perceptual.networks.hed import hed_dataset_names
from train.perceptual.networks.st_lpips import BlurPool, BlurredConv, L2Pool


@pytest.fixture(
    scope="module", params=["alex", "alex_l2", "vgg", "vgg_l2", "lite0", "lite0_smooth", "lite2", "hed", "hed_smooth"]
)
def network(request: pytest.FixtureRequest) -> FeatureNetwork:
    torch.manual_seed(0)
    if request.param.startswith("lite"):
        version, _, smooth = request.param.partition("_")
        return EfficientNetLite(version, smooth=bool(smooth))
    if request.param.startswith("hed"):
        return HEDVGG16(smooth=True, stages=4) if request.param == "hed_smooth" else HEDVGG16()
    return STLPIPS(request.param)


def picture(batch: int = 1, height: int = 64, width: int = 72, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_features_are_frozen_and_independent_of_the_batch(network: FeatureNetwork) -> None:
    assert not any(parameter.requires_grad for parameter in network.parameters())
    x = picture(batch=2)
    together = network.features(x)
    alone = network.features(x[1:])
    assert 4 <= len(together) <= 5
    for both, one in zip(together, alone, strict=True):
        assert torch.allclose(both[1:], one, atol=1e-4 * float(one.abs().max() + 1))
        assert torch.isfinite(both).all()


def test_features_carry_a_gradient_to_the_picture(network: FeatureNetwork) -> None:
    x = picture().requires_grad_()
    loss = torch.stack([m.square().mean() for m in network.features(x)]).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_features_run_under_bf16_autocast(network: FeatureNetwork) -> None:
    x = picture()
    exact = network.features(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network.features(x)
    for a, b in zip(exact, rough, strict=True):
        assert functional.cosine_similarity(a.flatten(), b.float().flatten(), dim=0) > 0.99


def test_features_of_a_network_made_in_inference_mode_are_the_same(network: FeatureNetwork) -> None:
    state = network.state_dict()
    with torch.inference_mode():
        other = copy.deepcopy(network)
        other.load_state_dict(state)
        assert other.training == network.training and next(other.parameters()).is_inference()
        for a, b in zip(network.features(picture()), other.features(picture()), strict=True):
            assert torch.equal(a, b)


def test_features_refuse_other_shapes(network: FeatureNetwork) -> None:
    for shape in ((1, 4, 64, 64), (3, 64, 64), (1, 3, 16, 64)):
        with pytest.raises(AlloSR2Error, match="RGB batch"):
            network.features(torch.zeros(shape))


def test_train_mode_changes_nothing(network: FeatureNetwork) -> None:
    x = picture()
    before = network.features(x)
    after = network.train().features(x)
    network.eval()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# ------------------------------------------------------------------------------------------------------------ ST-LPIPS


def test_blur_pool_in_closed_form() -> None:
    pool = BlurPool(2)
    constant = pool(torch.full((1, 2, 8, 10), 3.0))
    assert constant.shape == (1, 2, 5, 6)  # (side + 4 - 3) // 2 + 1
    assert torch.allclose(constant, torch.full_like(constant, 3.0))
    impulse = torch.zeros(1, 2, 9, 9)
    impulse[:, 0, 4, 4] = 16.0
    # with pad 2 and kernel 3 output i is centred on input 2 i - 1; input 4 lies halfway between outputs 2 and 3
    assert pool(impulse)[0, 0, 2:4, 2:4].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    odd = torch.zeros(1, 2, 9, 9)
    odd[:, 1, 5, 5] = 16.0
    assert pool(odd)[0, 1, 3, 3] == 4.0 and pool(odd)[0, 0].abs().sum() == 0.0


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_st_lpips_is_zero_for_equal_pictures_and_symmetric(net: str) -> None:
    torch.manual_seed(1)
    model = STLPIPS(net)  # type: ignore[arg-type]
    for number in range(5):
        model.get_submodule(f"lin{number}.model.1").weight.abs_()  # published heads are non-negative
    x, y = picture(2, 64, 64), picture(2, 64, 64, seed=1)
    assert model(x, x).abs().max() == 0.0
    assert model(x, y).shape == (2,) and model(x, y).min() > 0.0
    assert torch.allclose(model(x, y), model(y, x))
    assert model(x, y).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x, y).dtype == torch.float32


def test_smooth_pooling_is_a_root_mean_square_and_a_dot_does_not_win_its_window() -> None:
    flat = torch.full((1, 1, 5, 5), 0.7)
    assert torch.allclose(L2Pool()(flat), torch.full((1, 1, 3, 3), 0.7))
    dot = torch.zeros(1, 1, 5, 5)
    dot[0, 0, 2, 2] = 1.0
    assert torch.allclose(L2Pool()(dot), torch.full((1, 1, 3, 3), 1 / 3))  # a maximum would be 1 at all nine
    assert torch.allclose(L2Pool(2)(flat), torch.full((1, 1, 4, 4), 0.7))
    assert L2Pool(2)(dot)[0, 0, 1:3, 1:3].tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_vgg_l2_has_the_names_and_sizes_of_the_published_one_and_other_features() -> None:
    torch.manual_seed(3)
    published, smooth = STLPIPS("vgg"), STLPIPS("vgg_l2")
    smooth.load_state_dict(published.state_dict(), strict=True)
    x = picture()
    maps, others = published.features(x), smooth.features(x)
    assert [m.shape for m in maps] == [m.shape for m in others]
    assert torch.equal(maps[0], others[0])  # before the first pooling
    assert not torch.allclose(maps[1], others[1], atol=1e-3)


def test_a_convolution_and_its_blur_are_one_convolution() -> None:
    torch.manual_seed(0)
    one = BlurredConv(3, 8, 11, padding=2).to(memory_format=torch.channels_last)
    conv = torch.nn.Conv2d(3, 8, 11, padding=2)
    conv.load_state_dict(one.state_dict())
    for size in ((64, 72), (33, 40)):
        both, fused = BlurPool(8)(conv(picture(1, *size))), one(picture(1, *size))
        assert fused.shape == both.shape
        torch.testing.assert_close(fused[..., 2:-2, 2:-2], both[..., 2:-2, 2:-2], atol=1e-5, rtol=1e-5)


def test_st_lpips_distance_formula() -> None:
    model = STLPIPS("alex")
    maps = [torch.randn(1, c, 4, 4) for c in (64, 192, 384, 256, 256)]
    others = [torch.randn_like(m) for m in maps]
    expected = 0.0
    for number, (a, b) in enumerate(zip(maps, others, strict=True)):
        squared = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square()
        head = model.get_submodule(f"lin{number}.model.1")
        expected += head(squared).mean().item()
    assert model.distance(maps, others).item() == pytest.approx(expected, abs=1e-5)


def test_unit_normalise_keeps_gradients_finite_at_dark_positions() -> None:
    x = torch.zeros(1, 8, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(unit_normalise(x).sum(), x)
    assert torch.isfinite(gradient).all()


def test_st_lpips_refuses_another_network() -> None:
    with pytest.raises(AlloSR2Error, match="alex"):
        STLPIPS("squeeze")  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------- EfficientNet-Lite


@pytest.mark.parametrize(("side", "kernel", "stride"), [(224, 3, 2), (225, 3, 2), (112, 5, 2), (57, 5, 2), (30, 5, 1)])
def test_same_padding_gives_ceil_of_side_over_stride(side: int, kernel: int, stride: int) -> None:
    conv = SamePadConv2d(1, 1, kernel, stride=stride)
    assert conv(torch.zeros(1, 1, side, side + 1)).shape[2:] == (-(-side // stride), -(-(side + 1) // stride))


def test_same_padding_puts_the_odd_pixel_below_and_right() -> None:
    conv = SamePadConv2d(1, 1, 3, stride=2, bias=False)
    conv.weight.data = torch.arange(9.0).view(1, 1, 3, 3)
    x = torch.rand(1, 1, 8, 8)
    assert torch.allclose(conv(x), functional.conv2d(functional.pad(x, (0, 1, 0, 1)), conv.weight, stride=2))


def test_folded_batch_norm_equals_the_pair() -> None:
    torch.manual_seed(2)
    conv, norm = nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, eps=LITE_BN_EPS)
    norm.running_mean = torch.randn(6)
    norm.running_var = torch.rand(6) + 0.1
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    state = {f"c.{k}": v for k, v in conv.state_dict().items()} | {f"n.{k}": v for k, v in norm.state_dict().items()}
    weight, bias = fold_batch_norm(state, "c", "n", LITE_BN_EPS)
    x = torch.randn(2, 4, 9, 9)
    assert torch.allclose(functional.conv2d(x, weight, bias), norm.eval()(conv(x)), atol=1e-5)


@pytest.mark.parametrize(("version", "channels"), [("lite0", (16, 24, 40, 112)), ("lite2", (16, 24, 48, 120))])
def test_published_lite_names_fill_every_parameter(version: str, channels: tuple[int, ...]) -> None:
    published: dict[str, torch.Tensor] = {}

    def add(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        published[f"{conv}.weight"] = torch.randn(shape) * 0.1
        for name in ("weight", "bias", "running_mean"):
            published[f"{norm}.{name}"] = torch.randn(shape[0])
        published[f"{norm}.running_var"] = torch.rand(shape[0]) + 0.5

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    width = 32
    for number, (kernel, _, expansion, out) in enumerate(b for stage in lite_blocks(version) for b in stage):
        block, hidden = f"_blocks.{number}", width * expansion
        if expansion != 1:
            add(f"{block}._expand_conv", f"{block}._bn0", (hidden, width, 1, 1))
        add(f"{block}._depthwise_conv", f"{block}._bn1", (hidden, 1, kernel, kernel))
        add(f"{block}._project_conv", f"{block}._bn2", (out, hidden, 1, 1))
        width = out
    model = EfficientNetLite(version)  # type: ignore[arg-type]
    model.load_state_dict(lite_state(published, version), strict=True)
    shapes = [tuple(m.shape[1:]) for m in model.features(picture(1, 64, 96))]
    assert shapes == [(c, 32 // 2**i, 48 // 2**i) for i, c in enumerate(channels)]


def test_no_loss_uses_the_witness() -> None:
    assert not [name for name in DISTANCES if "lite2" in name]
    folder = Path(train.__file__).parent
    sources = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}
    named = {name for name, source in sources.items() if "lite2" in source}
    assert named == {
        "downloads/wheels.py",
        "metrics/suite.py",
        "perceptual/networks/__init__.py",
        "perceptual/networks/efficientnet.py",
    }
    measuring = {name for name, source in sources.items() if "load_metric_suite" in source}
    assert measuring == {"evaluate/run.py", "metrics/__init__.py", "metrics/suite.py", "studies/ablate.py"}, (
        "no stage trains on it"
    )


# ----------------------------------------------------------------------------------------------------------------- HED


def test_hed_names_cover_the_thirteen_convolutions() -> None:
    names = dict(hed_dataset_names())
    model = HEDVGG16()
    assert set(names) == {name for name, _ in model.named_children()} and len(names) == 13
    assert names["conv1_1"] == "block1/layers/conv2d/vars" and names["conv5_3"] == "block5/layers/conv2d_2/vars"
    shapes = [tuple(m.shape[1:]) for m in model.features(picture(1, 64, 96))]
    assert shapes == [(64, 64, 96), (128, 32, 48), (256, 16, 24), (512, 8, 12), (512, 4, 6)]


def test_hed_sees_blue_first_and_the_mean_removed() -> None:
    model = HEDVGG16()
    first = model.get_submodule("conv1_1")
    first.weight.data.zero_()
    first.bias.data.zero_()
    first.weight.data[:3, :, 1, 1] = torch.eye(3)
    second = model.get_submodule("conv1_2")
    second.weight.data.zero_()
    second.bias.data.zero_()
    second.weight.data[:3, :3, 1, 1] = torch.eye(3)
    red = torch.zeros(1, 3, 32, 32)
    red[:, 0] = 1.0
    expected = torch.tensor([0.0, 0.0, 255.0 - 122.67891434])  # blue, green, red after ReLU
    assert torch.allclose(model.features(red)[0][0, :3, 5, 5], expected, atol=1e-3)


def test_smooth_pooling_hears_every_value_and_stages_are_the_first_ones() -> None:
    torch.manual_seed(0)
    whole = HEDVGG16()
    first = HEDVGG16(smooth=True, stages=2)
    first.load_state_dict(whole.state_dict(), strict=False)
    x = picture()
    maps = first.features(x)
    assert len(maps) == 2 and torch.equal(maps[0], whole.features(x)[0])
    pooled = first._pool(torch.tensor([[[[3.0, 1.0], [1.0, 5.0]]]]))
    assert abs(float(pooled) - 3.0) < 1e-4  # root of 36 / 4; the maximum would hear the 5 alone
    with pytest.raises(AlloSR2Error, match="1 to 5 stages; got 6"):
        HEDVGG16(stages=6)


def test_smooth_strides_do_not_see_a_checkerboard() -> None:
    """To the published first layer a checkerboard of single pixels is a change of tone; to the blurred one, nothing."""
    torch.manual_seed(0)
    published, smooth = EfficientNetLite("lite0"), EfficientNetLite("lite0", smooth=True)
    smooth.load_state_dict(published.state_dict())
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    board = 0.2 * (-1.0) ** (rows + columns)
    flat = torch.full((1, 3, 64, 64), 0.5)
    inner = (..., slice(4, -4), slice(4, -4))  # padding is another matter

    def response(model: EfficientNetLite) -> float:
        moved = (model.features(flat + board)[0] - model.features(flat)[0])[inner]
        return float(moved.abs().max())

    assert response(published) > 0.01
    assert response(smooth) < 1e-4
    assert [m.shape for m in smooth.features(flat)] == [m.shape for m in published.features(flat)]
