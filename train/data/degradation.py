"""Second-order degradations of the Real-ESRGAN kind (Wang et al. 2021, arXiv 2107.10833), seeded per sample.

Two rounds of blur, random resize, noise and JPEG, then a final sinc filter and JPEG in random order. `severe` uses the
published ranges; `real` halves the blur and noise ranges and starts JPEG at quality 50; `mild` is one gentle round.
Written from the paper's text and its published parameter table. JPEG is Pillow's real encoder, not an approximation.

Beyond the paper, on request (`extended`): light motion blur before the first round, and at each compression WebP or
another chroma subsampling, which phones, messengers and the web add to the published JPEG at 4:2:0.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.fft import next_fast_len
from torch import Tensor

from allosr2_core.errors import AlloSR2Error

T = TypeVar("T")
SCALE = 4
"""The enlargement everything here is trained for and measured at."""
Strength = Literal["mild", "real", "severe"]
STRENGTHS: tuple[Strength, ...] = get_args(Strength)
KERNEL_SIZES = tuple(range(7, 22, 2))
FFT_SIDE = 9
"""Kernels of this side or larger are applied in the frequency domain: at 21 px a third to a quarter of the time."""
RESIZE_MODES = ("area", "bilinear", "bicubic")
MOTION_PROBABILITY = 0.2
MOTION_LENGTH = (2.0, 9.0)
"""Path of a light motion blur, px of the high-resolution picture."""
WEBP_PROBABILITY = 0.25
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0", "4:2:0")
"""Chroma subsamplings of JPEG, drawn evenly; the last one is the usual one."""


@dataclass(frozen=True)
class Round:
    """Ranges of one round of blur, resize, noise and JPEG."""

    blur_probability: float
    sigma: tuple[float, float]
    """Standard deviation of Gaussian-like kernels, in pixels of the picture at that point."""
    sinc_probability: float
    resize: tuple[float, float]
    """Scale factor range; drawn up / down / keep with `resize_probability`."""
    resize_probability: tuple[float, float, float]
    gaussian_noise: tuple[float, float]
    """Standard deviation, in 1/255."""
    poisson_noise: tuple[float, float]
    """Scale of the shot noise."""
    grey_noise_probability: float
    jpeg: tuple[int, int]
    """Quality."""


@dataclass(frozen=True)
class Recipe:
    """A full pipeline: rounds in order, then the final sinc filter with this probability."""

    rounds: tuple[Round, ...]
    final_sinc_probability: float


RECIPES: dict[Strength, Recipe] = {
    "mild": Recipe(
        rounds=(Round(0.5, (0.1, 0.8), 0.0, (0.8, 1.2), (0.1, 0.2, 0.7), (0, 3), (0.01, 0.2), 0.4, (75, 98)),),
        final_sinc_probability=0.0,
    ),
    "real": Recipe(
        rounds=(
            Round(1.0, (0.2, 1.5), 0.1, (0.5, 1.2), (0.2, 0.5, 0.3), (1, 15), (0.05, 1.5), 0.4, (50, 95)),
            Round(0.5, (0.2, 0.8), 0.1, (0.6, 1.2), (0.3, 0.4, 0.3), (1, 10), (0.05, 1.0), 0.4, (50, 95)),
        ),
        final_sinc_probability=0.5,
    ),
    "severe": Recipe(
        rounds=(
            Round(1.0, (0.2, 3.0), 0.1, (0.15, 1.5), (0.2, 0.7, 0.1), (1, 30), (0.05, 3.0), 0.4, (30, 95)),
            Round(0.8, (0.2, 1.5), 0.1, (0.3, 1.2), (0.3, 0.4, 0.3), (1, 25), (0.05, 2.5), 0.4, (30, 95)),
        ),
        final_sinc_probability=0.8,
    ),
}


def degrade(
    hr: Tensor, strength: Strength, generator: torch.Generator, scale: int = 4, *, extended: bool = False
) -> Tensor:
    """High-resolution pictures [B, 3, H, W] in [0, 1] -> low-resolution [B, 3, H/scale, W/scale] in [0, 1].

    The result has 8-bit values. Every random number comes from `generator` (CPU). H and W must be multiples of `scale`;
    an unknown strength is an error. `extended` adds what the module's text says goes beyond the paper.
    """
    if strength not in RECIPES:
        raise AlloSR2Error(f"expected strength to be one of {STRENGTHS}; got {strength!r}")
    if hr.ndim != 4 or hr.shape[1] != 3 or hr.shape[2] % scale or hr.shape[3] % scale:
        raise AlloSR2Error(f"expected [B, 3, H, W] with H, W multiples of {scale}; got {tuple(hr.shape)}")
    return torch.cat([_degrade_one(x[None].float(), RECIPES[strength], generator, scale, extended) for x in hr])


def _degrade_one(hr: Tensor, recipe: Recipe, rng: torch.Generator, scale: int, extended: bool) -> Tensor:
    height, width = hr.shape[-2:]
    out_h, out_w = height // scale, width // scale
    x = hr
    if extended and _uniform(rng) < MOTION_PROBABILITY:
        x = filter2d(x, motion_kernel(_uniform(rng, *MOTION_LENGTH), _uniform(rng, 0.0, math.pi)))
    for index, ranges in enumerate(recipe.rounds):
        if _uniform(rng) < ranges.blur_probability:
            x = filter2d(x, random_kernel(rng, ranges.sigma, ranges.sinc_probability))
        factor = _resize_factor(rng, ranges)
        if index:  # the second round's factor is relative to the final size, as published
            x = _resize(x, max(1, round(out_h * factor)), max(1, round(out_w * factor)), _choice(rng, RESIZE_MODES))
        else:
            x = _resize(x, max(4, round(height * factor)), max(4, round(width * factor)), _choice(rng, RESIZE_MODES))
        x = _noise(x, rng, ranges)
        if index < len(recipe.rounds) - 1:
            x = _compress(x, _integer(rng, *ranges.jpeg), rng, extended)
    quality = _integer(rng, *recipe.rounds[-1].jpeg)
    sinc = _uniform(rng) < recipe.final_sinc_probability
    mode, kernel_size = _choice(rng, RESIZE_MODES), _choice(rng, KERNEL_SIZES)
    cutoff = math.pi / 3 + _uniform(rng) * (math.pi - math.pi / 3)
    sinc_first = _uniform(rng) < 0.5
    if sinc and not sinc_first:
        x = _compress(x, quality, rng, extended)
    x = _resize(x, out_h, out_w, mode)
    if sinc:
        x = filter2d(x, sinc_kernel(cutoff, kernel_size)).clamp(0, 1)
    if sinc_first or not sinc:
        x = _compress(x, quality, rng, extended)
    return x.mul(255).round().clamp(0, 255).div(255)


# --- random numbers -----------------------------------------------------------------------------------------------


def _uniform(rng: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def _integer(rng: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=rng))


def _choice(rng: torch.Generator, options: tuple[T, ...]) -> T:
    return options[_integer(rng, 0, len(options) - 1)]


def _resize_factor(rng: torch.Generator, ranges: Round) -> float:
    up, down, _ = ranges.resize_probability
    u = _uniform(rng)
    if u < up:
        return _uniform(rng, 1.0, ranges.resize[1])
    return _uniform(rng, ranges.resize[0], 1.0) if u < up + down else 1.0


# --- kernels ------------------------------------------------------------------------------------------------------


def random_kernel(rng: torch.Generator, sigma: tuple[float, float], sinc_probability: float) -> Tensor:
    """A random blur kernel [k, k], sum 1: Gaussian, generalised Gaussian, plateau (iso- or anisotropic) or sinc."""
    size = _choice(rng, KERNEL_SIZES)
    if _uniform(rng) < sinc_probability:
        low = math.pi / 3 if size < 13 else math.pi / 5
        return sinc_kernel(_uniform(rng, low, math.pi), size)
    family = _uniform(rng)  # published mixture: gaussian 0.45 / 0.25, generalised 0.12 / 0.03, plateau 0.12 / 0.03
    isotropic = _uniform(rng) < (0.64 if family < 0.7 else 0.8)
    sx = _uniform(rng, *sigma)
    sy, theta = (sx, 0.0) if isotropic else (_uniform(rng, *sigma), _uniform(rng, -math.pi, math.pi))
    if family < 0.7:
        return gaussian_kernel(size, sx, sy, theta, beta=1.0, plateau=False)
    beta_range = (0.5, 4.0) if family < 0.85 else (1.0, 2.0)
    beta = _uniform(rng, beta_range[0], 1.0) if _uniform(rng) < 0.5 else _uniform(rng, 1.0, beta_range[1])
    return gaussian_kernel(size, sx, sy, theta, beta=beta, plateau=family >= 0.85)


def gaussian_kernel(size: int, sx: float, sy: float, theta: float, beta: float, plateau: bool) -> Tensor:
    """exp(-d^beta / 2), or 1/(1 + d^beta) for the plateau; d = squared Mahalanobis distance. [size, size], sum 1."""
    r = torch.arange(size, dtype=torch.float32) - size // 2
    y, x = torch.meshgrid(r, r, indexing="ij")
    u = math.cos(theta) * x + math.sin(theta) * y
    v = -math.sin(theta) * x + math.cos(theta) * y
    d = (u / sx).square() + (v / sy).square()
    kernel = 1.0 / (1.0 + d**beta) if plateau else torch.exp(-0.5 * d**beta)
    return kernel / kernel.sum()


def sinc_kernel(cutoff: float, size: int) -> Tensor:
    """Circular low-pass filter with this cutoff in rad/px: cutoff * J1(cutoff r) / (2 pi r). [size, size], sum 1."""
    r = torch.arange(size, dtype=torch.float64) - size // 2
    radius = torch.hypot(*torch.meshgrid(r, r, indexing="ij"))
    safe = radius.clamp(min=1e-9)
    kernel = cutoff * torch.special.bessel_j1(cutoff * safe) / (2 * math.pi * safe)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return (kernel / kernel.sum()).float()


def motion_kernel(length: float, angle: float) -> Tensor:
    """A straight, even movement of `length` px at `angle` rad. [k, k], sum 1, symmetric.

    Points along the path, each shared bilinearly between the four pixels around it.
    """
    size = 2 * math.ceil(length / 2) + 3
    r = torch.arange(size, dtype=torch.float32) - size // 2
    along_N1 = torch.linspace(-length / 2, length / 2, 16 * math.ceil(length) + 1)[:, None]
    rows_Nk, columns_Nk = (
        (1 - (step * along_N1 - r).abs()).clamp(min=0) for step in (math.sin(angle), math.cos(angle))
    )
    kernel = rows_Nk.T @ columns_Nk
    return kernel / kernel.sum()


def filter2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlate every channel with one kernel, reflecting (or, on tiny pictures, replicating) at the border."""
    side, pad = kernel.shape[-1], kernel.shape[-1] // 2
    mode = "reflect" if min(x.shape[-2:]) > pad else "replicate"
    padded = F.pad(x, (pad, pad, pad, pad), mode=mode)
    if side < FFT_SIDE:
        return F.conv2d(padded.transpose(0, 1), kernel[None, None]).transpose(0, 1)
    height, width = padded.shape[-2:]
    # What wraps around lands in the rows and columns left out.
    size = [next_fast_len(extent, real=True) for extent in (height, width)]
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernel.flip(0, 1), s=size)
    return torch.fft.irfft2(spectrum, s=size)[..., side - 1 : height, side - 1 : width]


# --- resize, noise, JPEG ------------------------------------------------------------------------------------------


def _resize(x: Tensor, height: int, width: int, mode: str) -> Tensor:
    """Like OpenCV's resize, which the published pipeline uses: no antialiasing except in "area"."""
    if (height, width) == tuple(x.shape[-2:]):
        return x
    if mode == "area":
        return F.interpolate(x, size=(height, width), mode="area")
    return F.interpolate(x, size=(height, width), mode=mode, align_corners=False).clamp(0, 1)


def _noise(x: Tensor, rng: torch.Generator, ranges: Round) -> Tensor:
    grey = _uniform(rng) < ranges.grey_noise_probability
    shape = (1, 1, *x.shape[-2:]) if grey else x.shape
    if _uniform(rng) < 0.5:
        return (x + torch.randn(shape, generator=rng) * (_uniform(rng, *ranges.gaussian_noise) / 255)).clamp(0, 1)
    source = (x.mean(dim=1, keepdim=True) if grey else x).clamp(0, 1).mul(255).round()
    used = int(torch.bincount(source.flatten().long(), minlength=256).count_nonzero())
    levels, source = 2 ** math.ceil(math.log2(max(2, used))), source.div(255)
    shot = torch.poisson(source * levels, generator=rng) / levels - source
    return (x + shot * _uniform(rng, *ranges.poisson_noise)).clamp(0, 1)


def _compress(x: Tensor, quality: int, rng: torch.Generator, extended: bool) -> Tensor:
    if not extended:
        return jpeg(x, quality)
    if _uniform(rng) < WEBP_PROBABILITY:
        return webp(x, quality)
    return jpeg(x, quality, _choice(rng, SUBSAMPLINGS))


def jpeg(x: Tensor, quality: int, subsampling: str = "4:2:0") -> Tensor:
    """[1, 3, H, W] in [0, 1] through Pillow's JPEG encoder and decoder; 4:2:0 is what cameras and the web write."""
    return _through(x, format="JPEG", quality=quality, subsampling=subsampling)


def webp(x: Tensor, quality: int) -> Tensor:
    """[1, 3, H, W] in [0, 1] through Pillow's lossy WebP encoder and decoder."""
    return _through(x, format="WEBP", quality=quality)


def _through(x: Tensor, **options: Any) -> Tensor:  # noqa: ANN401 - Pillow's own
    pixels = x[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    decoded = np.asarray(Image.open(buffer, formats=("JPEG", "WEBP")).convert("RGB"))
    return torch.from_numpy(decoded.copy()).permute(2, 0, 1)[None].float().div(255)
