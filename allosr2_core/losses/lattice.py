"""Penalties on the grid of patch edges that one-step results in patch latents tend to carry.

A picture has no reason to prefer one column phase over another; a decoder that paints patches does. The contrast of
the mean absolute gradient between phases is what users see as a fine lattice, and what the metric measures. A network
can balance the phases and still paint one motif into patch after patch: the autocorrelation at the patch size shows it.
"""

from __future__ import annotations

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


def lattice_excess(pixels: Tensor, pixels_hr: Tensor, period: int) -> dict[str, Tensor]:
    """{"lattice": mean of what the result's phase contrast has above that of its reference, both directions}."""
    excess = [
        F.relu(phase_contrast(x, period) - phase_contrast(y, period))
        for x, y in ((pixels, pixels_hr), (pixels.transpose(-1, -2), pixels_hr.transpose(-1, -2)))
    ]
    return {"lattice": (excess[0] + excess[1]).mean()}


def patch_repeat(pixels: Tensor, period: int) -> Tensor:
    """How much the fine texture of each picture repeats (> 0) or alternates (< 0) from patch to patch: -> [B].

    Autocorrelation of the high-passed grey picture along its rows at a lag of `period`, minus the mean of its two
    neighbours. pixels: [B, C, H, W], at least period + 2 wide. About 0 for a photograph; transpose for the other axis.
    """
    grey_B1HW = pixels.float().mean(dim=1, keepdim=True)
    fine = grey_B1HW - F.avg_pool2d(grey_B1HW, 3, stride=1, padding=1, count_include_pad=False)
    power_B = fine.square().flatten(1).mean(dim=1).clamp(min=1e-8)

    def correlation(lag: int) -> Tensor:
        return (fine[..., lag:] * fine[..., :-lag]).flatten(1).mean(dim=1) / power_B

    return correlation(period) - 0.5 * (correlation(period - 1) + correlation(period + 1))


CHECKER_TAPS = (1.0, -4.0, 6.0, -4.0, 1.0)
"""Binomial high-pass: all of what alternates from pixel to pixel, next to nothing else."""


def checker_share(pixels: Tensor) -> Tensor:
    """How much of the fine texture of each picture is a checkerboard of single pixels: -> [B].

    Energy of the grey picture high-passed along rows and columns, over that of its difference to a 3 x 3 mean. About
    0.01 for a photograph. Networks that take every other pixel first are blind to what it is and see a tone.
    """
    grey_B1HW = pixels.float().mean(dim=1, keepdim=True)
    fine = grey_B1HW - F.avg_pool2d(grey_B1HW, 3, stride=1, padding=1, count_include_pad=False)
    taps = grey_B1HW.new_tensor(CHECKER_TAPS) / 16.0
    checker = F.conv2d(F.conv2d(grey_B1HW, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return checker.square().flatten(1).mean(dim=1) / fine.square().flatten(1).mean(dim=1).clamp(min=1e-8)


def checker_excess(pixels: Tensor, pixels_hr: Tensor) -> dict[str, Tensor]:
    """{"checker": mean of what the result's checkerboard share has above that of its reference}."""
    return {"checker": F.relu(checker_share(pixels) - checker_share(pixels_hr)).mean()}


def repeat_excess(pixels: Tensor, pixels_hr: Tensor, period: int) -> dict[str, Tensor]:
    """{"repeat": mean |patch_repeat of the result - patch_repeat of its reference|, both directions}."""
    excess = [
        (patch_repeat(x, period) - patch_repeat(y, period)).abs()
        for x, y in ((pixels, pixels_hr), (pixels.transpose(-1, -2), pixels_hr.transpose(-1, -2)))
    ]
    return {"repeat": (excess[0] + excess[1]).mean()}
