"""Metrics against straightforward formulations (numpy, scipy) and against values known in closed form."""

import math

import numpy as np
import pytest
import scipy.ndimage as ndimage
import torch
from PIL import Image
from scipy.special import gamma

from allosr2_core.errors import AlloSR2Error
from train.metrics import Niqe, lattice, luma, psnr_y, quantise, ssim_y
from train.metrics.niqe import BLOCK, fit_aggd
from train.metrics.perceptual import DISTS_CHANNELS, HEDDists
from train.perceptual.networks import HEDVGG16


def smooth_noise(batch: int, height: int, width: int, seed: int) -> torch.Tensor:
    """Photo-like random pictures B,3,H,W: blurred noise plus a little grain."""
    rng = np.random.default_rng(seed)
    coarse = ndimage.gaussian_filter(rng.standard_normal((batch, 3, height, width)), (0, 0, 3, 3))
    picture = 0.5 + 1.2 * coarse + 0.02 * rng.standard_normal((batch, 3, height, width))
    return torch.from_numpy(np.clip(picture, 0, 1).astype(np.float32))


# ------------------------------------------------------------------------------------------------------------ fidelity


def test_luma_of_black_white_and_primaries() -> None:
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float32)
    expected = torch.tensor([16.0, 235.0, 81.481, 144.553, 40.966], dtype=torch.float64)
    assert torch.allclose(luma(colours.view(5, 3, 1, 1)).flatten(), expected)


def test_psnr_of_a_constant_offset() -> None:
    x = torch.full((2, 3, 16, 16), 0.5)
    y = x + torch.tensor([0.1, 0.2]).view(2, 1, 1, 1)
    expected = [20 * math.log10(255 / (219 * step)) for step in (0.1, 0.2)]
    assert psnr_y(x, y).tolist() == pytest.approx(expected, abs=1e-4)
    assert torch.isinf(psnr_y(x, x)).all()


def test_border_is_not_measured() -> None:
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = x.clone()
    y[..., :4, :] = 0.0
    y[..., :, -4:] = 1.0
    assert torch.isinf(psnr_y(x, y)).all()
    assert ssim_y(x, y).item() == pytest.approx(1.0)
    assert torch.isfinite(psnr_y(x, y, border=0)).all()


def test_ssim_equals_the_filter_formulation() -> None:
    x, y = smooth_noise(2, 40, 52, seed=1), smooth_noise(2, 40, 52, seed=2)
    y = 0.7 * x + 0.3 * y
    for index, value in enumerate(ssim_y(x, y).tolist()):
        a, b = (luma(v)[index, 0, 4:-4, 4:-4].numpy() for v in (x, y))
        blur = lambda v: ndimage.gaussian_filter(v, 1.5, radius=5)[5:-5, 5:-5]  # noqa: E731
        ma, mb = blur(a), blur(b)
        va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
        c1, c2 = 6.5025, 58.5225
        expected = ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()
        assert value == pytest.approx(expected, abs=1e-9)


def test_quantise_rounds_and_clamps() -> None:
    x = torch.tensor([-0.2, 0.0, 0.501 / 255, 1.4 / 255, 1.2])
    assert (quantise(x) * 255).round().tolist() == [0, 0, 1, 1, 255]


@pytest.mark.parametrize("metric", [psnr_y, ssim_y])
def test_shapes_must_agree(metric) -> None:  # noqa: ANN001
    with pytest.raises(AlloSR2Error, match="differ in shape"):
        metric(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 40))
    with pytest.raises(AlloSR2Error, match="leaves nothing"):
        metric(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


# ------------------------------------------------------------------------------------------------------------- lattice


def test_lattice_finds_the_period_of_a_grid() -> None:
    x = smooth_noise(1, 128, 128, seed=3)
    tiled = x.clone()
    tiled[..., ::4] += 0.15
    tiled = tiled.clamp(0, 1)
    assert lattice(x, 4).item() < 0.2
    assert lattice(tiled, 4).item() > 0.8
    assert lattice(tiled.transpose(2, 3), 4).item() == pytest.approx(lattice(tiled, 4).item())


def test_lattice_of_a_staircase_in_closed_form() -> None:
    steps = torch.arange(65).div(4, rounding_mode="floor").float() / 64  # jumps at every fourth column only
    x = steps.expand(1, 3, 65, 65)
    assert lattice(x, 4).item() == pytest.approx(4.0)  # (max - min) / mean = (s - 0) / (s / 4)
    assert lattice(torch.full((2, 3, 65, 65), 0.3), 4).tolist() == [0.0, 0.0]


def test_lattice_refuses_too_small_pictures() -> None:
    with pytest.raises(AlloSR2Error, match="four of them"):
        lattice(torch.zeros(1, 3, 64, 100), 16)


# ---------------------------------------------------------------------------------------------------------------- NIQE


def plain_aggd(x: np.ndarray) -> tuple[float, float, float]:
    """The fit as it is usually written: brute force over all candidate shapes."""
    shapes = np.arange(0.2, 10.001, 0.001)
    table = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))
    left, right = np.sqrt((x[x < 0] ** 2).mean()), np.sqrt((x[x > 0] ** 2).mean())
    ratio = left / right
    moment = np.abs(x).mean() ** 2 / (x**2).mean()
    target = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = shapes[np.argmin((table - target) ** 2)]
    beta = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * beta, right * beta


def plain_niqe(rgb8: np.ndarray, mean: np.ndarray, covariance: np.ndarray, window: np.ndarray) -> float:
    """NIQE block by block, with scipy and Pillow."""
    y = np.round(rgb8.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 16)
    rows, columns = y.shape[0] // BLOCK, y.shape[1] // BLOCK
    y = y[: rows * BLOCK, : columns * BLOCK]
    features = []
    for size in (BLOCK, BLOCK // 2):
        mu = ndimage.convolve(y, window, mode="nearest")
        sigma = np.sqrt(np.abs(ndimage.convolve(y * y, window, mode="nearest") - mu * mu))
        normal = (y - mu) / (sigma + 1)
        vectors = []
        for i in range(rows):
            for j in range(columns):
                block = normal[i * size : (i + 1) * size, j * size : (j + 1) * size]
                shape, left, right = plain_aggd(block)
                vector = [shape, (left + right) / 2]
                for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    shape, left, right = plain_aggd(block * np.roll(block, shift, (0, 1)))
                    vector += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
                vectors.append(vector)
        features.append(np.array(vectors))
        half_size = (y.shape[1] // 2, y.shape[0] // 2)
        y = np.asarray(Image.fromarray(y.astype(np.float32)).resize(half_size, Image.Resampling.BICUBIC), np.float64)
    samples = np.concatenate(features, axis=1)
    difference = mean - samples.mean(axis=0)
    pooled = np.linalg.pinv((covariance + np.cov(samples, rowvar=False)) / 2)
    return float(np.sqrt(difference @ pooled @ difference))


def made_up_model() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    root = 0.3 * rng.standard_normal((36, 36))
    offsets = np.arange(7) - 3
    row = np.exp(-(offsets**2) / (2 * (7 / 6) ** 2))
    window = np.outer(row, row)
    return rng.uniform(0.2, 2.0, 36), root @ root.T + 0.1 * np.eye(36), window / window.sum()


def test_niqe_equals_the_block_by_block_algorithm() -> None:
    model = made_up_model()
    x = smooth_noise(2, 200, 310, seed=4)
    expected = [plain_niqe(v.mul(255).round().byte().permute(1, 2, 0).numpy(), *model) for v in x]
    assert Niqe(*model)(x).tolist() == pytest.approx(expected, rel=2e-3)


def test_aggd_equals_brute_force() -> None:
    rng = np.random.default_rng(6)
    samples = np.stack([rng.standard_normal(4000), rng.laplace(size=4000), rng.standard_normal(4000) ** 3])
    samples = np.where(samples > 0, 0.6 * samples, samples)
    ours = torch.stack(fit_aggd(torch.from_numpy(samples)), dim=1).numpy()
    assert ours == pytest.approx(np.array([plain_aggd(s) for s in samples]), rel=1e-9)


def test_niqe_of_a_flat_picture_is_not_a_number() -> None:
    assert math.isnan(Niqe(*made_up_model())(torch.full((1, 3, 192, 192), 0.5)).item())


def test_niqe_refuses_small_pictures_and_foreign_models() -> None:
    mean, covariance, window = made_up_model()
    with pytest.raises(AlloSR2Error, match="192 px"):
        Niqe(mean, covariance, window)(torch.zeros(1, 3, 191, 400))
    with pytest.raises(AlloSR2Error, match="36 means"):
        Niqe(mean[:10], covariance, window)


# ----------------------------------------------------------------------------------------------------------- HED-DISTS


class FlatNetwork(HEDVGG16):
    """Feature maps that repeat the picture's channels, so that the formula can be followed by hand."""

    def features(self, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
        return [x_BCHW.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1) for channels in DISTS_CHANNELS[1:]]


def test_hed_dists_formula() -> None:
    count = sum(DISTS_CHANNELS)
    alpha, beta = torch.zeros(1, count, 1, 1), torch.zeros(1, count, 1, 1)
    alpha[:, 3], beta[:, 3] = 1.0, 3.0  # the first channel of the first stage only; normalised to 1/4 and 3/4
    metric = HEDDists(FlatNetwork(), alpha, beta)
    x, y = smooth_noise(2, 32, 32, seed=7), smooth_noise(2, 32, 32, seed=8)
    assert metric(x, x).abs().max() < 1e-6
    for index in range(2):
        a, b = x[index].mean(0).double(), y[index].mean(0).double()
        cov = ((a - a.mean()) * (b - b.mean())).mean()
        texture = (2 * a.mean() * b.mean() + 1e-6) / (a.mean() ** 2 + b.mean() ** 2 + 1e-6)
        structure = (2 * cov + 1e-6) / (a.var(unbiased=False) + b.var(unbiased=False) + 1e-6)
        expected = 1 - (0.25 * texture + 0.75 * structure)
        assert metric(x, y)[index].item() == pytest.approx(expected.item(), abs=1e-5)
