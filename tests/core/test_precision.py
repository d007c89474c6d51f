"""What the networks compute in: the rule, and how near the results are to those in fp32."""

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from allosr2_core import precision
from allosr2_core.checkpoint.format import Checkpoint, embedded_path, load_checkpoint
from allosr2_core.image.read import load_image
from allosr2_core.networks.activation import silu_of_own
from allosr2_core.networks.unet import TimeResBlock
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from tests.support.command_line import CommandLine
from tests.support.pictures import write_photo

PHOTOS = sorted((Path(__file__).parents[1] / "photos").glob("*.jpg"))
SIDE = 48  # px of the crops
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(embedded_path())


@pytest.fixture(scope="module")
def pipelines(checkpoint: Checkpoint) -> dict[str, Pipeline]:
    return {name: Pipeline.from_checkpoint(checkpoint, dtype=dtype) for name, dtype in precision.DTYPES.items()}


def crop(path: Path) -> Tensor:
    image_BHWC = load_image(path).image_BHWC
    return image_BHWC[:, 100 : 100 + SIDE, 100 : 100 + SIDE]


def psnr(found: Tensor, expected: Tensor) -> float:
    return -10.0 * math.log10(max(float((found - expected).square().mean()), 1e-12))


# ---- the rule ----


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"amx_tile": True, "amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_tile": True, "amx_bf16": False, "avx512_bf16": True}, torch.float32),
        ({"avx512_bf16": True}, torch.float32),
        ({"avx512_bf16": True, "cpu_name": "INTEL XEON"}, torch.float32),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, torch.bfloat16),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC"}, torch.float32),
        ({"neon": True, "bf16": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_a_cpu_computes_in_bf16_where_it_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, object], expected: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)
    assert precision.auto(CPU) == precision.dtype_of("auto", CPU) == expected


def test_a_torch_that_tells_no_flags_counts_as_without_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert precision.auto(CPU) == torch.float32


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_computes_in_bf16_or_else_fp16(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation)
    assert precision.auto(CUDA) == expected


def test_other_devices_compute_in_fp32() -> None:
    assert precision.auto(torch.device("mps")) == precision.auto(torch.device("meta")) == torch.float32


def test_a_word_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: {"amx_bf16": True})
    assert [precision.dtype_of(word, CPU) for word in precision.WORDS[1:]] == list(precision.DTYPES.values())
    assert [precision.name_of(dtype) for dtype in precision.DTYPES.values()] == list(precision.DTYPES)


@pytest.mark.parametrize(
    ("arguments", "name"), [((), "bf16"), (("--dtype", "auto"), "bf16"), (("--dtype", "fp32"), "fp32")]
)
def test_the_command_line_says_what_it_computed_in(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], name: str
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: {"amx_bf16": True})
    source, report = write_photo(tmp_path / "in.png"), tmp_path / "report.json"
    outcome = run(
        *("upscale", source, tmp_path / "out.png", "--checkpoint", run.checkpoint, "--json", report, *arguments)
    )
    assert outcome.code == 0 and outcome.out.splitlines()[0].endswith(f" s in {name}")
    found = json.loads(report.read_text())
    assert [picture["dtype"] for picture in found["pictures"]] == [name]
    assert found["settings"]["dtype"] == (arguments[-1] if arguments else "auto")
    assert "computed here in bf16" in run("inspect", run.checkpoint).out


# ---- fp32 ----


def test_fp32_is_what_the_networks_are_built_in(checkpoint: Checkpoint, pipelines: dict[str, Pipeline]) -> None:
    network = checkpoint.build_network()
    before = {name: value.data_ptr() for name, value in network.named_parameters()}
    network.compute_in(torch.float32)
    assert before == {name: value.data_ptr() for name, value in network.named_parameters()}
    picture = crop(PHOTOS[0])[:, :16, :16]
    plain = Pipeline.from_checkpoint(checkpoint)
    assert plain.dtype == torch.float32
    assert torch.equal(plain.upscale(picture), pipelines["fp32"].upscale(picture))


def test_activations_keep_their_input_where_there_are_gradients() -> None:
    torch.manual_seed(0)
    block, x, emb = TimeResBlock(4, 6), torch.randn(1, 4, 5, 5), torch.randn(1, 6)
    nn.init.normal_(block.conv2.weight)
    nn.init.normal_(block.modulation.weight)
    with torch.no_grad():
        without = block(x, emb)
        y = x.clone()
        assert silu_of_own(y).data_ptr() == y.data_ptr()
    with_gradients = block(x.requires_grad_(), emb)
    assert torch.equal(without, with_gradients)
    with_gradients.sum().backward()
    assert x.grad is not None and torch.autograd.gradcheck(
        lambda x: block.double()(x, emb.double()), x.detach().double().requires_grad_()
    )


# ---- half precision ----


def test_half_precision_is_near_fp32(pipelines: dict[str, Pipeline]) -> None:
    """At least 55 dB from the result in fp32, 60 on average; the same time to 0.001."""
    found = []
    for path in PHOTOS:
        picture = crop(path)
        expected, half = (pipelines[name].upscale(picture) for name in ("fp32", "bf16"))
        times = [pipelines[name].predict_t(picture) for name in ("fp32", "bf16")]
        assert half.dtype == torch.float32 and abs(times[0] - times[1]) < 0.001
        found.append(psnr(half, expected))
    assert len(found) == 3 and min(found) >= 55.0 and sum(found) / 3 >= 60.0
    assert max(found) < 100.0  # or nothing was computed in bf16


def test_fp16_is_nearer(pipelines: dict[str, Pipeline]) -> None:
    picture = crop(PHOTOS[0])[:, :24, :24]
    expected, half, sixteen = (pipelines[name].upscale(picture) for name in precision.DTYPES)
    assert 100.0 > psnr(sixteen, expected) > psnr(half, expected)


def sky(side: int = 64) -> Tensor:
    """[1, side, side, 3]: a smooth vertical gradient in 8-bit levels."""
    down = torch.linspace(0.0, 1.0, side)[:, None]
    colours = torch.lerp(torch.tensor([0.36, 0.55, 0.82]), torch.tensor([0.78, 0.86, 0.95]), down)
    return ((colours * 255).round() / 255)[None, :, None].expand(1, side, side, 3)


def steps(pipeline: Pipeline, exact: Pipeline) -> tuple[float, float]:
    """How far the result of a sky is from that in fp32, on average over a row and over 16 x 16 px, in 8-bit levels."""
    error_CHW = (pipeline.upscale(sky())[0] - exact.upscale(sky())[0]).movedim(-1, 0) * 255
    return float(error_CHW.mean(2).abs().max()), float(functional.avg_pool2d(error_CHW, 16).abs().max())


def test_a_sky_gets_no_steps(checkpoint: Checkpoint, pipelines: dict[str, Pipeline]) -> None:
    rows, squares = steps(pipelines["bf16"], pipelines["fp32"])
    assert rows < 0.25 and squares < 0.1
    whole = checkpoint.build_autoencoder().bfloat16()  # the linear basis too
    backend = replace(pipelines["bf16"].backend, decode=lambda z: whole.decode(z).float())
    rows, squares = steps(replace(pipelines["bf16"], backend=backend), pipelines["fp32"])
    assert rows > 0.25 and squares > 0.1


class Conversions(TorchDispatchMode):
    """Counts the maps of two thousand values and more that are copied to another type."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's signature
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and result.dtype != args[0].dtype and result.numel() > 2000:
            self.count += 1
        return result


def test_maps_change_their_type_at_the_edges_of_a_network_only(checkpoint: Checkpoint) -> None:
    network, autoencoder, head = checkpoint.build_network(), checkpoint.build_autoencoder(), checkpoint.build_snr_head()
    assert head is not None
    for part in (network, autoencoder, head):
        part.compute_in(torch.bfloat16)
    z, t = torch.randn(1, 16, 16, 16), torch.tensor([0.3])
    calls: list[tuple[Callable[[], Tensor], int, torch.dtype]] = [
        (lambda: network(z, t), 2, torch.float32),  # in and out
        (lambda: autoencoder.encode(torch.rand(1, 3, 64, 64)), 1, torch.float32),  # in; the sum with the basis is fp32
        (lambda: autoencoder.decode(z), 2, torch.float32),  # in, and the basis for the convolutions over pixels
        (lambda: head.features(z), 1, torch.bfloat16),
    ]
    for call, count, dtype in calls:
        with torch.no_grad(), Conversions() as conversions:
            result = call()
        assert (conversions.count, result.dtype) == (count, dtype)


# ---- pictures of other types ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pictures_of_other_types_are_taken_as_fp32(pipelines: dict[str, Pipeline], dtype: torch.dtype) -> None:
    picture = crop(PHOTOS[1])[:, :16, :20].to(dtype)
    rgba = torch.cat([picture, picture[..., :1]], dim=-1)
    mask = picture[..., 0]
    options, pipeline = UpscaleOptions(color="wavelet"), pipelines["fp32"]
    found = pipeline.upscale(rgba, options, mask=mask)
    assert found.dtype == torch.float32
    assert torch.equal(found, pipeline.upscale(rgba.float(), options, mask=mask.float()))
    assert pipeline.predict_t(picture) == pipeline.predict_t(picture.float())
