"""Penalties on the grid of patch edges that one-step results in patch latents tend to carry.

A picture has no reason to prefer one column phase over another; a decoder that paints patches does. The contrast of
the mean absolute gradient between phases is what users see as a fine lattice, and what the metric measures. A network
can balance the phases and still paint one motif into patch after patch: the autocorrelation at the patch size shows it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def phase_contrast(pixels: Tensor, period: int) -> Tensor:
    """Relative variance over the `period` phases of the mean absolute horizontal gradient of each picture: -> [B].

    pixels: [B, C, H, W]. 0 for a picture without a grid. Transpose the picture for the vertical one.
    """
    gradient_BHW = (pixels[..., :, 1:] - pixels[..., :, :-1]).abs().mean(dim=1)
    whole = gradient_BHW.shape[-1] // period * period
    phases_BP = gradient_BHW[..., :whole].mean(dim=1).unflatten(1, (-1, period)).mean(dim=1)
    return phases_BP.var(dim=1, unbiased=False) / phases_BP.mean(dim=1).square().clamp(min=1e-8)


def lattice_excess(pixels: Tensor, pixels_hr: Tensor, periods: Sequence[int]) -> dict[str, Tensor]:
    """{"lattice": what the result's phase contrasts have above its reference's}, summed over directions and periods.

    A coarse period also catches the edges of JPEG blocks that were left, at 8 px of the low-resolution picture.
    """
    excess = [
        F.relu(phase_contrast(x, period) - phase_contrast(y, period)).mean()
        for x, y in ((pixels, pixels_hr), (pixels.transpose(-1, -2), pixels_hr.transpose(-1, -2)))
        for period in periods
    ]
    return {"lattice": torch.stack(excess).sum()}


REPEAT_WINDOW = 32
"""Side of the windows that `patch_repeat` looks at, px: a motif shows in the grass, not in the picture as a whole."""
REPEAT_FLOOR = 1e-5
"""Power below which fine texture counts as none: a standard deviation of 0.003 for pictures in [0, 1]."""


def _fine(pixels: Tensor, side: int) -> Tensor:
    """What a mean over side x side pixels leaves out."""
    return pixels - F.avg_pool2d(pixels, side, stride=1, padding=side // 2, count_include_pad=False)


def patch_repeat(pixels: Tensor, period: int) -> Tensor:
    """How much the fine texture repeats (> 0) or alternates (< 0) from patch to patch, by windows: -> [B, h, w].

    Autocorrelation of the high-passed channels along the rows at a lag of `period`, minus the mean of its two
    neighbours, in half overlapping windows of REPEAT_WINDOW px. pixels: [B, C, H, W] in [0, 1], more than
    period + 1 px wide. About 0 for a photograph; transpose for the other axis.
    """
    pixels = pixels.float()
    fine = _fine(pixels, 5)
    height, width = fine.shape[-2], fine.shape[-1] - period - 1
    window = min(REPEAT_WINDOW, height, width)

    def correlation(lag: int) -> Tensor:
        products = (fine[..., :width] * fine[..., lag : lag + width]).mean(dim=1, keepdim=True)
        return F.avg_pool2d(products, window, stride=max(1, window // 2))[:, 0]

    excess = correlation(period) - 0.5 * (correlation(period - 1) + correlation(period + 1))
    return excess / (correlation(0) + REPEAT_FLOOR)


CHECKER_TAPS = (1.0, -4.0, 6.0, -4.0, 1.0)
"""Binomial high-pass: all of what alternates from pixel to pixel, next to nothing else."""


def checker_share(pixels: Tensor) -> Tensor:
    """How much of the fine texture of each picture is a checkerboard of single pixels: -> [B].

    Energy of the grey picture high-passed along rows and columns, over that of its difference to a 3 x 3 mean. About
    0.01 for a photograph. Networks that take every other pixel first are blind to what it is and see a tone.
    """
    grey_B1HW = pixels.float().mean(dim=1, keepdim=True)
    fine = _fine(grey_B1HW, 3)
    taps = grey_B1HW.new_tensor(CHECKER_TAPS) / 16.0
    checker = F.conv2d(F.conv2d(grey_B1HW, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return checker.square().flatten(1).mean(dim=1) / fine.square().flatten(1).mean(dim=1).clamp(min=1e-8)


def checker_excess(pixels: Tensor, pixels_hr: Tensor) -> dict[str, Tensor]:
    """{"checker": mean of what the result's checkerboard share has above that of its reference}."""
    return {"checker": F.relu(checker_share(pixels) - checker_share(pixels_hr)).mean()}


def repeat_excess(pixels: Tensor, pixels_hr: Tensor, period: int) -> dict[str, Tensor]:
    """{"repeat": mean |patch_repeat of the result - patch_repeat of its reference|, both directions}.

    pixels, pixels_hr: [B, C, H, W] in [-1, 1].
    """
    pixels, pixels_hr = (picture.mul(0.5).add(0.5) for picture in (pixels, pixels_hr))
    excess = [
        (patch_repeat(x, period) - patch_repeat(y, period)).abs().mean()
        for x, y in ((pixels, pixels_hr), (pixels.transpose(-1, -2), pixels_hr.transpose(-1, -2)))
    ]
    return {"repeat": excess[0] + excess[1]}
