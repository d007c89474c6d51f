"""Penalties on the grid of patch edges that one-step results in patch latents tend to carry.

A picture has no reason to prefer one column phase over another; a decoder that paints patches does. The contrast of
the mean gradient between phases is what users see as a fine lattice, and what the metric measures. A network
can balance the phases and still paint one motif into patch after patch: the autocorrelation at the patch size shows it.

Each measure is relative to how busy a picture is. As penalties they are relative to the REFERENCE, and in powers, to
which grain adds the same everywhere: otherwise a grid is cheaper to hide under grain than to leave out, and networks
paint that grain (docs/research/training-notes.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .registry import SRStep, loss

SEAM_KNEE = 0.15
"""Gradients count by their square up to about this, by their size above, so that no single edge outweighs the grid; 19
levels of 255 for pixels in [-1, 1]."""
GRADIENT_FLOOR = 0.001
"""Mean gradient, so counted, below which a picture counts as flat: that of gradients of 2 levels of 255."""


def _gradient(pixels: Tensor) -> Tensor:
    """Mean of sqrt(gradient^2 + knee^2) - knee between each column and the next: -> [B, W - 1]."""
    squares = (pixels[..., :, 1:] - pixels[..., :, :-1]).square()
    return ((squares + SEAM_KNEE**2).sqrt() - SEAM_KNEE).mean(dim=(1, 2))


def _contrast(gradient_BW: Tensor, period: int, reference_BW: Tensor) -> Tensor:
    """Variance of a gradient's phases over the squared mean of a reference's: -> [B]."""
    phases_BP, level_B = _phases(gradient_BW, period), _phases(reference_BW, period).mean(dim=1)
    return phases_BP.var(dim=1, unbiased=False) / level_B.clamp(min=GRADIENT_FLOOR).square()


def _phases(gradient_BW: Tensor, period: int) -> Tensor:
    """[B, W] -> its mean at each phase, over whole periods: [B, period]."""
    whole = gradient_BW.shape[-1] // period * period
    return gradient_BW[..., :whole].unflatten(1, (-1, period)).mean(dim=1)


def lattice_excess(pixels: Tensor, pixels_hr: Tensor, periods: Sequence[int]) -> dict[str, Tensor]:
    """{"lattice": what the result's phase contrasts have above its reference's}, summed over directions and periods.

    Both relative to the reference's gradients.
    A coarse period also catches the edges of JPEG blocks that were left, at 8 px of the low-resolution picture.
    """
    gradients = [(_gradient(x), _gradient(y)) for x, y in ((pixels, pixels_hr), (pixels.mT, pixels_hr.mT))]
    excess = [
        F.relu(_contrast(x, period, y) - _contrast(y, period, y)).mean() for x, y in gradients for period in periods
    ]
    return {"lattice": torch.stack(excess).sum()}


REPEAT_WINDOW = 32
"""Side of the windows that `patch_repeat` looks at, px: a motif shows in the grass, not in the picture as a whole."""
REPEAT_SIDE = 5
"""Of the mean that fine texture leaves out, px."""
REPEAT_FLOOR = 1e-5
"""Power below which fine texture counts as none: a standard deviation of 0.003 for pictures in [0, 1]."""


def fine_texture(pixels: Tensor, side: int) -> Tensor:
    """What a mean over side x side pixels (at the border: over those there are) leaves out. pixels: [B, C, H, W]."""
    pixels = mean = pixels.contiguous()  # pooling is several times as slow with a few channels last
    for kernel in ((side, 1), (1, side)):  # the same mean, from 2 side values instead of side^2
        padding = (kernel[0] // 2, kernel[1] // 2)
        mean = F.avg_pool2d(mean, kernel, stride=1, padding=padding, count_include_pad=False)
    return pixels - mean


def patch_repeat(pixels: Tensor, period: int) -> Tensor:
    """How much the fine texture repeats (> 0) or alternates (< 0) from patch to patch, by windows: -> [B, h, w].

    Autocorrelation of the high-passed channels along the rows at a lag of `period`, minus the mean of its two
    neighbours, in half overlapping windows of REPEAT_WINDOW px, relative to their power. pixels: [B, C, H, W] in
    [0, 1], more than period + 1 px wide. About 0 for a photograph; transpose for the other axis.
    """
    fine = fine_texture(pixels.float(), REPEAT_SIDE)
    return _repeating(fine, period) / _power(fine, period)


def _repeating(fine: Tensor, period: int) -> Tensor:
    """The autocorrelation of fine texture at a lag of `period`, less its neighbours' mean: -> [B, h, w]."""
    before, at, after = (_correlation(fine, lag, period + 1) for lag in (period - 1, period, period + 1))
    return at - 0.5 * (before + after)


def _power(fine: Tensor, period: int) -> Tensor:
    """The power of fine texture in the windows of `_repeating`, with a floor: -> [B, h, w]."""
    return _correlation(fine, 0, period + 1) + REPEAT_FLOOR


def _correlation(fine: Tensor, lag: int, longest: int) -> Tensor:
    """Mean product of the channels with those `lag` px further right, in windows that a lag of `longest` leaves."""
    height, width = fine.shape[-2], fine.shape[-1] - longest
    window = min(REPEAT_WINDOW, height, width)
    products = (fine[..., :width] * fine[..., lag : lag + width]).mean(dim=1, keepdim=True)
    return F.avg_pool2d(products, window, stride=max(1, window // 2))[:, 0]


def repeat_excess(pixels: Tensor, pixels_hr: Tensor, period: int) -> dict[str, Tensor]:
    """{"repeat": mean |patch_repeat of the result - patch_repeat of its reference|, both directions}.

    Both relative to the reference's fine texture.
    pixels, pixels_hr: [B, C, H, W] in [-1, 1].
    """
    fine, fine_hr = (fine_texture(x.float().mul(0.5).add(0.5), REPEAT_SIDE) for x in (pixels, pixels_hr))
    across, down = (
        ((_repeating(x, period) - _repeating(y, period)).abs() / _power(y, period)).mean()
        for x, y in ((fine, fine_hr), (fine.mT, fine_hr.mT))
    )
    return {"repeat": across + down}


@loss("lattice")
def _lattice(step: SRStep) -> dict[str, Tensor]:
    return lattice_excess(step.pixels, step.target, step.grids)


@loss("repeat")
def _repeat(step: SRStep) -> dict[str, Tensor]:
    return repeat_excess(step.pixels, step.target, step.period)
