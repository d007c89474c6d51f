"""PSNR and SSIM on the luma channel, with the conventions of the super-resolution literature.

Luma is ITU-R BT.601 "studio swing" (16..235), the values of MATLAB's rgb2ycbcr. BORDER px are dropped on every side
before anything is measured, as is usual at scale 4: there a network has less context than anywhere else.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from allosr2_core.errors import AlloSR2Error

BORDER = 4  # px
SSIM_WINDOW = 11  # px
SSIM_SIGMA = 1.5  # px
SSIM_C1 = (0.01 * 255.0) ** 2
SSIM_C2 = (0.03 * 255.0) ** 2


def quantise(x_BCHW: Tensor) -> Tensor:
    """The picture as an 8-bit file holds it: clamped to [0, 1] and rounded to multiples of 1/255."""
    return x_BCHW.clamp(0.0, 1.0).mul(255.0).round().div(255.0)


def luma(x_BCHW: Tensor) -> Tensor:
    """RGB B,3,H,W in [0, 1] -> BT.601 luma B,1,H,W in 16..235, float64."""
    if x_BCHW.ndim != 4 or x_BCHW.shape[1] != 3:
        raise AlloSR2Error(f"expected an RGB batch B,3,H,W, got shape {tuple(x_BCHW.shape)}")
    weight = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=x_BCHW.device).view(1, 3, 1, 1)
    return (x_BCHW.double() * weight).sum(dim=1, keepdim=True) + 16.0


def psnr_y(x_BCHW: Tensor, y_BCHW: Tensor, border: int = BORDER) -> Tensor:
    """Peak signal-to-noise ratio of the luma in dB, peak 255, (B,); infinite for equal pictures."""
    a, b = _luma_pair(x_BCHW, y_BCHW, border)
    mse = (a - b).square().mean(dim=(1, 2, 3))
    return 10.0 * torch.log10(255.0**2 / mse)


def ssim_y(x_BCHW: Tensor, y_BCHW: Tensor, border: int = BORDER) -> Tensor:
    """Structural similarity of the luma (Wang et al. 2004), (B,): Gaussian 11x11, sigma 1.5, whole windows only."""
    a, b = _luma_pair(x_BCHW, y_BCHW, border)
    if min(a.shape[2:]) < SSIM_WINDOW:
        raise AlloSR2Error(f"SSIM needs {SSIM_WINDOW} px inside the {border} px border, got {tuple(x_BCHW.shape[2:])}")
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a.square()
    var_b = _blur(b * b) - mean_b.square()
    cov = _blur(a * b) - mean_a * mean_b
    brightness = (2.0 * mean_a * mean_b + SSIM_C1) / (mean_a.square() + mean_b.square() + SSIM_C1)
    structure = (2.0 * cov + SSIM_C2) / (var_a + var_b + SSIM_C2)
    return (brightness * structure).mean(dim=(1, 2, 3))


def _luma_pair(x_BCHW: Tensor, y_BCHW: Tensor, border: int) -> tuple[Tensor, Tensor]:
    if x_BCHW.shape != y_BCHW.shape:
        raise AlloSR2Error(f"pictures differ in shape: {tuple(x_BCHW.shape)} and {tuple(y_BCHW.shape)}")
    if border < 0 or min(x_BCHW.shape[2:]) <= 2 * border:
        raise AlloSR2Error(f"a border of {border} px leaves nothing of {tuple(x_BCHW.shape[2:])}")
    inner = slice(border, -border or None)
    return luma(x_BCHW)[..., inner, inner], luma(y_BCHW)[..., inner, inner]


def _blur(x_B1HW: Tensor) -> Tensor:
    offsets = torch.arange(SSIM_WINDOW, dtype=x_B1HW.dtype, device=x_B1HW.device) - SSIM_WINDOW // 2
    row = torch.exp(-offsets.square() / (2.0 * SSIM_SIGMA**2))
    row = row / row.sum()
    return F.conv2d(F.conv2d(x_B1HW, row.view(1, 1, 1, -1)), row.view(1, 1, -1, 1))
