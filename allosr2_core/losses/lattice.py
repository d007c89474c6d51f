"""Penalties on the grid of patch edges that one-step results in patch latents tend to carry.

A picture has no reason to prefer one column phase over another; a decoder that paints patches does. The contrast of
the mean gradient between phases is what users see as a fine lattice, and what the metric measures. A network
can balance the phases and still paint one motif into patch after patch: the autocorrelation at the patch size shows it.

Each measure is relative to how busy a picture is. As penalties they are relative to the REFERENCE, and in powers, to
which grain adds the same everywhere: otherwise a grid is cheaper to hide under grain than to leave out, and networks
paint that grain (docs/ablation.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SEAM_KNEE = 0.15
"""Gradients count by their square up to about this, by their size above, so that no single edge outweighs the grid; 19
levels of 255 for pixels in [-1, 1]."""
GRADIENT_FLOOR = 0.001
"""Mean gradient, so counted, below which a picture counts as flat: that of gradients of 2 levels of 255."""


def phase_contrast(pixels: Tensor, period: int, reference: Tensor | None = None) -> Tensor:
    """Variance over the `period` phases of the mean horizontal gradient, Charbonnier's, of each picture: -> [B].

    Relative to the squared mean gradient of `reference`, of the picture itself by default. pixels, reference:
    [B, C, H, W] in [-1, 1]. 0 for a picture without a grid. Transpose the pictures for the vertical one.
    """
    phases_BP = _phases(pixels, period)
    level_B = (phases_BP if reference is None else _phases(reference, period)).mean(dim=1)
    return phases_BP.var(dim=1, unbiased=False) / level_B.clamp(min=GRADIENT_FLOOR).square()


def _phases(pixels: Tensor, period: int) -> Tensor:
    """Mean of sqrt(gradient^2 + knee^2) - knee along the rows at each phase: -> [B, period]."""
    squares = (pixels[..., :, 1:] - pixels[..., :, :-1]).square()
    gradient_BHW = ((squares + SEAM_KNEE**2).sqrt() - SEAM_KNEE).mean(dim=1)
    whole = gradient_BHW.shape[-1] // period * period
    return gradient_BHW[..., :whole].mean(dim=1).unflatten(1, (-1, period)).mean(dim=1)


def lattice_excess(pixels: Tensor, pixels_hr: Tensor, periods: Sequence[int]) -> dict[str, Tensor]:
    """{"lattice": what the result's phase contrasts have above its reference's}, summed over directions and periods.

    Both relative to the reference's gradients.
    A coarse period also catches the edges of JPEG blocks that were left, at 8 px of the low-resolution picture.
    """
    excess = [
        F.relu(phase_contrast(x, period, y) - phase_contrast(y, period)).mean()
        for x, y in ((pixels, pixels_hr), (pixels.transpose(-1, -2), pixels_hr.transpose(-1, -2)))
        for period in periods
    ]
    return {"lattice": torch.stack(excess).sum()}


REPEAT_WINDOW = 32
"""Side of the windows that `patch_repeat` looks at, px: a motif shows in the grass, not in the picture as a whole."""
REPEAT_FLOOR = 1e-5
"""Power below which fine texture counts as none: a standard deviation of 0.003 for pictures in [0, 1]."""


def fine_texture(pixels: Tensor, side: int) -> Tensor:
    """What a mean over side x side pixels leaves out."""
    return pixels - F.avg_pool2d(pixels, side, stride=1, padding=side // 2, count_include_pad=False)


def patch_repeat(pixels: Tensor, period: int, reference: Tensor | None = None) -> Tensor:
    """How much the fine texture repeats (> 0) or alternates (< 0) from patch to patch, by windows: -> [B, h, w].

    Autocorrelation of the high-passed channels along the rows at a lag of `period`, minus the mean of its two
    neighbours, in half overlapping windows of REPEAT_WINDOW px, relative to the power of the high-passed `reference`,
    of the picture itself by default. pixels, reference: [B, C, H, W] in [0, 1], more than period + 1 px wide. About 0
    for a photograph; transpose for the other axis.
    """
    height, width = pixels.shape[-2], pixels.shape[-1] - period - 1
    window = min(REPEAT_WINDOW, height, width)

    def correlation(fine: Tensor, lag: int) -> Tensor:
        products = (fine[..., :width] * fine[..., lag : lag + width]).mean(dim=1, keepdim=True)
        return F.avg_pool2d(products, window, stride=max(1, window // 2))[:, 0]

    fine = fine_texture(pixels.float(), 5)
    excess = correlation(fine, period) - 0.5 * (correlation(fine, period - 1) + correlation(fine, period + 1))
    return excess / (correlation(fine if reference is None else fine_texture(reference.float(), 5), 0) + REPEAT_FLOOR)


CHECKER_FLOOR = 1e-5
"""Power of fine texture below which a picture counts as flat."""
CHECKER_TAPS = (1.0, -4.0, 6.0, -4.0, 1.0)
"""Binomial high-pass: all of what alternates from pixel to pixel, next to nothing else."""


def checker_share(pixels: Tensor, reference: Tensor | None = None) -> Tensor:
    """How much of the fine texture of each picture is a checkerboard of single pixels: -> [B].

    Energy of the grey picture high-passed along rows and columns, over that of the difference of `reference` (the
    picture itself by default) to its 3 x 3 mean. About 0.01 for a photograph. Networks that take every other pixel
    first are blind to what it is and see a tone.
    """
    grey_B1HW = pixels.float().mean(dim=1, keepdim=True)
    fine = fine_texture(grey_B1HW if reference is None else reference.float().mean(dim=1, keepdim=True), 3)
    taps = grey_B1HW.new_tensor(CHECKER_TAPS) / 16.0
    checker = F.conv2d(F.conv2d(grey_B1HW, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return checker.square().flatten(1).mean(dim=1) / fine.square().flatten(1).mean(dim=1).clamp(min=CHECKER_FLOOR)


def checker_excess(pixels: Tensor, pixels_hr: Tensor) -> dict[str, Tensor]:
    """{"checker": mean of what the result's checkerboard has above its reference's}, relative to the reference."""
    return {"checker": F.relu(checker_share(pixels, pixels_hr) - checker_share(pixels_hr)).mean()}


def repeat_excess(pixels: Tensor, pixels_hr: Tensor, period: int) -> dict[str, Tensor]:
    """{"repeat": mean |patch_repeat of the result - patch_repeat of its reference|, both directions}.

    Both relative to the reference's fine texture.
    pixels, pixels_hr: [B, C, H, W] in [-1, 1].
    """
    pixels, pixels_hr = (picture.mul(0.5).add(0.5) for picture in (pixels, pixels_hr))
    excess = [
        (patch_repeat(x, period, y) - patch_repeat(y, period)).abs().mean()
        for x, y in ((pixels, pixels_hr), (pixels.transpose(-1, -2), pixels_hr.transpose(-1, -2)))
    ]
    return {"repeat": excess[0] + excess[1]}
