"""Degradations: sizes, determinism, kernels, the ranges they promise, and that severe is worse than mild."""

import math

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from train.data import degradation
from train.data.degradation import (
    KERNEL_SIZES,
    RECIPES,
    STRENGTHS,
    Round,
    Strength,
    degrade,
    filter2d,
    gaussian_kernel,
    jpeg,
    motion_kernel,
    random_kernel,
    sinc_kernel,
    webp,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photo(height: int = 64, width: int = 64, batch: int = 1) -> Tensor:
    """A smooth picture with edges and a little texture."""
    y, x = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 6, width), indexing="ij")
    grey = 0.5 + 0.25 * torch.sin(3 * x + y) * torch.cos(2 * y) + 0.2 * ((x + y) % 2 > 1) - 0.1
    colours = torch.stack([grey, 0.8 * grey + 0.1, 1 - grey])
    return (
        colours[None].expand(batch, -1, -1, -1) + 0.02 * torch.randn(batch, 3, height, width, generator=rng(9))
    ).clamp(0, 1)


# ---- the whole pipeline ----


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(("height", "width", "scale"), [(64, 96, 4), (8, 12, 4), (4, 4, 4), (30, 22, 2), (9, 7, 1)])
def test_sizes_and_eight_bit_values(strength: Strength, height: int, width: int, scale: int) -> None:
    for seed in range(4):
        lr = degrade(photo(height, width, batch=2), strength, rng(seed), scale)
        assert lr.shape == (2, 3, height // scale, width // scale)
        assert lr.dtype == torch.float32
        assert 0.0 <= float(lr.min()) <= float(lr.max()) <= 1.0
        torch.testing.assert_close(lr * 255, (lr * 255).round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_everything_random_comes_from_the_generator(strength: Strength) -> None:
    hr = photo(batch=2)
    before, kept = torch.get_rng_state(), hr.clone()
    first = degrade(hr, strength, rng(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(hr, kept)
    torch.manual_seed(123)
    assert torch.equal(degrade(hr, strength, rng(1)), first)
    assert not torch.equal(degrade(hr, strength, rng(2)), first)
    one_by_one = rng(1)
    assert torch.equal(torch.cat([degrade(x[None], strength, one_by_one) for x in hr]), first)


def test_severe_is_worse_than_real_is_worse_than_mild() -> None:
    hr = photo(96, 96)

    def psnr(strength: Strength) -> float:
        values = []
        for seed in range(16):
            up = functional.interpolate(degrade(hr, strength, rng(seed)), scale_factor=4, mode="bicubic").clamp(0, 1)
            values.append(-10 * math.log10(float((up - hr).square().mean())))
        return sum(values) / len(values)

    mild, real, severe = (psnr(strength) for strength in STRENGTHS)
    assert mild > real + 0.3 > severe + 0.6


@pytest.mark.parametrize("strength", STRENGTHS)
def test_brightness_is_kept_on_average(strength: Strength) -> None:
    hr = photo()
    means = torch.stack([degrade(hr, strength, rng(seed)).mean() for seed in range(12)])
    assert float((means - hr.mean()).abs().max()) < 0.03


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 3, 32, 30), (1, 1, 32, 32), (3, 32, 32)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AlloSR2Error, match="multiples of 4"):
        degrade(torch.zeros(shape), "real", rng())


def test_unknown_strengths_are_refused() -> None:
    with pytest.raises(AlloSR2Error, match="'extreme'"):
        degrade(photo(), "extreme", rng())  # type: ignore[arg-type]


# ---- ranges ----


def test_severe_is_the_published_pipeline() -> None:
    """Wang et al. 2021: the ranges and probabilities of both rounds and of the final sinc filter, in their order."""
    recipe = RECIPES["severe"]
    first = Round(1.0, (0.2, 3.0), 0.1, (0.15, 1.5), (0.2, 0.7, 0.1), (1, 30), (0.05, 3.0), 0.4, (30, 95))
    second = Round(0.8, (0.2, 1.5), 0.1, (0.3, 1.2), (0.3, 0.4, 0.3), (1, 25), (0.05, 2.5), 0.4, (30, 95))
    assert recipe.rounds == (first, second)
    assert recipe.final_sinc_probability == 0.8
    assert KERNEL_SIZES == (7, 9, 11, 13, 15, 17, 19, 21)


def test_kernels_are_drawn_from_the_published_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Isotropic .45, anisotropic .25, generalised .12 and .03, plateau .12 and .03; a tenth of all are sinc filters."""
    drawn: list[dict[str, float]] = []
    sinc: list[float] = []

    def record(size: int, sx: float, sy: float, theta: float, beta: float, plateau: bool) -> Tensor:
        drawn.append({"size": size, "sx": sx, "sy": sy, "theta": theta, "beta": beta, "plateau": plateau})
        return torch.ones(size, size)

    def record_sinc(cutoff: float, size: int) -> Tensor:
        sinc.append(cutoff)
        return torch.ones(size, size)

    monkeypatch.setattr(degradation, "gaussian_kernel", record)
    monkeypatch.setattr(degradation, "sinc_kernel", record_sinc)
    generator, count = rng(11), 6000
    for _ in range(count):
        random_kernel(generator, (0.2, 3.0), 0.1)
    assert len(sinc) / count == pytest.approx(0.1, abs=0.015)
    assert math.pi / 5 <= min(sinc) and max(sinc) <= math.pi

    def share(family: str, isotropic: bool) -> float:
        chosen = [k for k in drawn if family_of(k) == family and (k["sx"] == k["sy"]) == isotropic]
        return len(chosen) / len(drawn)

    def family_of(kernel: dict[str, float]) -> str:
        if kernel["plateau"]:
            return "plateau"  # half of them with beta 1 exactly: the published draw between 1 and 1
        return "gaussian" if kernel["beta"] == 1.0 else "generalised"

    for family, isotropic, anisotropic in (
        ("gaussian", 0.45, 0.25),
        ("generalised", 0.12, 0.03),
        ("plateau", 0.12, 0.03),
    ):
        assert share(family, True) == pytest.approx(isotropic, abs=0.02), family
        assert share(family, False) == pytest.approx(anisotropic, abs=0.02), family
    sigmas = [k["sx"] for k in drawn]
    assert 0.2 <= min(sigmas) < 0.22 and 2.98 < max(sigmas) <= 3.0
    generalised = [k["beta"] for k in drawn if not k["plateau"] and k["beta"] != 1.0]
    plateau = [k["beta"] for k in drawn if k["plateau"]]
    assert 0.5 <= min(generalised) < 0.55 and 3.8 < max(generalised) <= 4.0
    assert 1.0 <= min(plateau) < 1.05 and 1.95 < max(plateau) <= 2.0
    assert {k["size"] for k in drawn} == set(KERNEL_SIZES)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_noise_follows_the_recipe(strength: Strength) -> None:
    """On flat grey: half of the draws are Gaussian, of a deviation within the range; 40 % are grey."""
    flat, draws = torch.full((1, 3, 48, 48), 0.5), 300
    for ranges in RECIPES[strength].rounds:
        noisy = [degradation._noise(flat, rng(seed), ranges) for seed in range(draws)]
        gaussian = [x for x in noisy if len(torch.unique(x)) > 100]  # shot noise of one grey has few values
        assert len(gaussian) / draws == pytest.approx(0.5, abs=0.1)
        grey = [x for x in noisy if torch.equal(x[:, 0], x[:, 1])]
        assert len(grey) / draws == pytest.approx(0.4, abs=0.1)
        deviations = [255 * float(x.std()) for x in gaussian]
        low, high = ranges.gaussian_noise
        assert low * 0.9 <= min(deviations) and max(deviations) <= high * 1.05
        assert max(deviations) - min(deviations) > 0.8 * (high - low)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_resize_factors_follow_the_recipe(strength: Strength) -> None:
    for ranges in RECIPES[strength].rounds:
        generator = rng(4)
        factors = torch.tensor([degradation._resize_factor(generator, ranges) for _ in range(2000)])
        assert ranges.resize[0] <= float(factors.min()) and float(factors.max()) <= ranges.resize[1]
        shares = [(factors > 1).float().mean(), (factors < 1).float().mean(), (factors == 1).float().mean()]
        for share, probability in zip(shares, ranges.resize_probability, strict=True):
            assert float(share) == pytest.approx(probability, abs=0.04)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_jpeg_qualities_follow_the_recipe(strength: Strength, monkeypatch: pytest.MonkeyPatch) -> None:
    qualities: list[int] = []

    def record(x: Tensor, quality: int) -> Tensor:
        qualities.append(quality)
        return x

    monkeypatch.setattr(degradation, "jpeg", record)
    recipe = RECIPES[strength]
    for seed in range(60):
        degrade(photo(16, 16), strength, rng(seed))
    assert len(qualities) == 60 * len(recipe.rounds)
    low, high = recipe.rounds[0].jpeg
    assert all(low <= quality <= high for quality in qualities)
    assert max(qualities) - min(qualities) > 0.7 * (high - low)


def test_what_goes_beyond_the_paper_is_drawn_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[object]] = {"webp": [], "jpeg": [], "motion": []}

    def keep_webp(x: Tensor, quality: int) -> Tensor:
        drawn["webp"].append(quality)
        return x

    def keep_jpeg(x: Tensor, quality: int, subsampling: str = "4:2:0") -> Tensor:
        drawn["jpeg"].append(subsampling)
        return x

    def keep_motion(length: float, angle: float) -> Tensor:
        drawn["motion"].append((length, angle))
        return torch.ones(1, 1)

    for name, keep in (("webp", keep_webp), ("jpeg", keep_jpeg), ("motion_kernel", keep_motion)):
        monkeypatch.setattr(degradation, name, keep)
    hr, runs = photo(16, 16), 400
    for seed in range(runs):
        degrade(hr, "severe", rng(seed))
    assert not drawn["webp"] and not drawn["motion"] and set(drawn["jpeg"]) == {"4:2:0"}
    drawn["jpeg"].clear()
    for seed in range(runs):
        degrade(hr, "severe", rng(seed), extended=True)
    assert len(drawn["webp"]) + len(drawn["jpeg"]) == 2 * runs
    assert len(drawn["webp"]) / (2 * runs) == pytest.approx(0.25, abs=0.06)
    for subsampling, share in (("4:4:4", 0.25), ("4:2:2", 0.25), ("4:2:0", 0.5)):
        assert drawn["jpeg"].count(subsampling) / len(drawn["jpeg"]) == pytest.approx(share, abs=0.07)
    assert len(drawn["motion"]) / runs == pytest.approx(0.2, abs=0.06)
    lengths, angles = (torch.tensor(values) for values in zip(*drawn["motion"], strict=True))
    assert 2 <= float(lengths.min()) < 3.5 and 7.5 < float(lengths.max()) <= 9
    assert 0 <= float(angles.min()) < 0.4 and 2.7 < float(angles.max()) < math.pi


def test_chroma_subsampling_and_webp_are_real_encoders() -> None:
    """Red and blue stripes of one pixel: without subsampling they survive, with it their colours mix."""
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[:, 0, :, ::2], stripes[:, 2, :, 1::2] = 1.0, 1.0

    def error(x: Tensor) -> float:
        return float((x - stripes).abs().mean())

    full, usual, other = jpeg(stripes, 95, "4:4:4"), jpeg(stripes, 95), webp(stripes, 95)
    assert error(full) < 0.05 < 0.15 < error(usual)
    assert torch.equal(jpeg(stripes, 95), jpeg(stripes, 95, "4:2:0"))
    assert 0.05 < error(other) and not torch.equal(other, usual)  # lossy WebP is always 4:2:0
    smooth = photo()
    assert float((webp(smooth, 90) - smooth).abs().mean()) < 0.03


def test_motion_blur_smears_along_its_angle_and_not_across() -> None:
    dot = torch.zeros(1, 1, 31, 31)
    dot[..., 15, 15] = 1.0
    r = torch.arange(31.0) - 15
    for angle in (0.0, math.pi / 2, 0.6):
        smeared = filter2d(dot, motion_kernel(8.0, angle))[0, 0]
        assert float(smeared.sum()) == pytest.approx(1.0, abs=1e-5)
        assert float((smeared * r).sum()) == pytest.approx(0.0, abs=1e-5)
        along = math.cos(angle) * r[None] + math.sin(angle) * r[:, None]
        across = math.cos(angle) * r[:, None] - math.sin(angle) * r[None]
        assert float((smeared * along.square()).sum()) == pytest.approx(
            8.0**2 / 12, rel=0.25
        )  # an even line's variance
        assert float((smeared * across.square()).sum()) < 0.5


def test_recipes_grow_in_every_range() -> None:
    """What severe can do includes what real can do; probabilities of the three resize directions sum to one."""
    for recipe in RECIPES.values():
        for ranges in recipe.rounds:
            assert sum(ranges.resize_probability) == pytest.approx(1.0)
    real, severe = RECIPES["real"].rounds, RECIPES["severe"].rounds
    for weak, strong in zip(real, severe, strict=True):
        assert strong.sigma[1] > weak.sigma[1]
        assert strong.gaussian_noise[1] > weak.gaussian_noise[1]
        assert strong.poisson_noise[1] > weak.poisson_noise[1]
        assert strong.jpeg[0] < weak.jpeg[0]
        assert strong.resize[0] < weak.resize[0]


# ---- kernels ----


@pytest.mark.parametrize("sinc", [0.0, 1.0, 0.3])
def test_random_kernels_sum_to_one(sinc: float) -> None:
    generator, sizes = rng(), set()
    for _ in range(150):
        kernel = random_kernel(generator, (0.2, 3.0), sinc)
        assert kernel.ndim == 2 and kernel.shape[0] == kernel.shape[1]
        assert bool(torch.isfinite(kernel).all())
        assert float(kernel.sum()) == pytest.approx(1.0, abs=1e-5)
        assert sinc > 0 or float(kernel.min()) >= 0
        assert int(kernel.argmax()) == kernel.numel() // 2
        sizes.add(kernel.shape[0])
    assert sizes == set(KERNEL_SIZES)


def moments(kernel: Tensor) -> Tensor:
    """Covariance of a kernel's weights in (y, x), px^2."""
    r = torch.arange(kernel.shape[0], dtype=torch.float32) - kernel.shape[0] // 2
    y, x = torch.meshgrid(r, r, indexing="ij")
    at = torch.stack([y.flatten(), x.flatten()])
    return (at * kernel.flatten()) @ at.T


def test_a_gaussian_kernel_has_its_standard_deviations_along_its_axes() -> None:
    along_x = gaussian_kernel(41, 4.0, 1.5, 0.0, beta=1.0, plateau=False)
    torch.testing.assert_close(moments(along_x), torch.diag(torch.tensor([2.25, 16.0])), atol=0.01, rtol=0.01)
    along_y = gaussian_kernel(41, 4.0, 1.5, math.pi / 2, beta=1.0, plateau=False)
    torch.testing.assert_close(moments(along_y), torch.diag(torch.tensor([16.0, 2.25])), atol=0.01, rtol=0.01)
    diagonal = moments(gaussian_kernel(41, 4.0, 1.5, math.pi / 4, beta=1.0, plateau=False))
    assert float(diagonal[0, 1]) == pytest.approx((16 - 2.25) / 2, rel=0.02)


def test_beta_and_plateau_change_the_shape() -> None:
    def row(beta: float, plateau: bool) -> Tensor:
        kernel = gaussian_kernel(21, 2.0, 2.0, 0.0, beta=beta, plateau=plateau)
        return kernel[10, 10:] / kernel[10, 10]

    torch.testing.assert_close(row(1.0, False)[:4], torch.exp(-(torch.arange(4.0) ** 2) / 8))
    torch.testing.assert_close(row(1.0, True)[:4], 1 / (1 + torch.arange(4.0) ** 2 / 4))
    assert bool((row(3.0, False)[1:2] > row(1.0, False)[1:2]).all())  # flatter top
    assert bool((row(3.0, False)[5:] < row(1.0, False)[5:]).all())  # shorter tail


def test_a_sinc_kernel_passes_low_and_stops_high_frequencies() -> None:
    cutoff, size = math.pi / 2, 21
    kernel = sinc_kernel(cutoff, size)
    assert float(kernel.sum()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(kernel, kernel.T)
    torch.testing.assert_close(kernel, kernel.flip(0))
    at = torch.arange(size, dtype=torch.float32) - size // 2

    def response(frequency: float) -> float:
        return float((kernel.sum(dim=0) * torch.cos(frequency * at)).sum())

    assert response(0.2 * cutoff) == pytest.approx(1.0, abs=0.1)
    assert abs(response(1.6 * cutoff)) < 0.1


# ---- parts ----


@pytest.mark.parametrize("side", [7, 9, 21])
def test_filter2d_correlates_and_keeps_the_size(side: int) -> None:
    x, kernel = torch.rand(1, 3, 40, 37, generator=rng()), torch.rand(side, side, generator=rng(1)) / side**2
    padded = torch.nn.functional.pad(x.double(), (side // 2,) * 4, mode="reflect")
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)
    expected = (windows * kernel.double()).sum(dim=(-2, -1)).float()
    torch.testing.assert_close(filter2d(x, kernel), expected, atol=1e-6, rtol=1e-6)


def test_filter2d_replicates_the_border_of_tiny_pictures() -> None:
    flat = torch.full((1, 3, 5, 2), 0.3)
    torch.testing.assert_close(filter2d(flat, sinc_kernel(1.0, 21)), flat)


def test_jpeg_loses_more_at_a_lower_quality() -> None:
    x = photo()
    errors = [float((jpeg(x, quality) - x).square().mean()) for quality in (95, 60, 20)]
    assert errors == sorted(errors)
    assert errors[0] < 0.5 * errors[2]
