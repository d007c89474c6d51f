"""Whether fine texture lies where the photograph has it.

Statistics of features over a whole crop ask for the right amount of texture and not for its place; errors pixel by
pixel are small where contrast is. Between the two a one-step network paints a canvas over skies and blurred
backgrounds, with the texture that the crop owes elsewhere. The loudness of fine detail, window by window and in
logarithms, sees that. Our own term; the paper has none like it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .fine_texture import fine_texture
from .registry import SRStep, loss

GRAIN_SIDES = (3, 9)
"""Detail is what a mean over so many pixels leaves out: 1 to 2 px fine, and 2 to 6 px from there to the next."""
GRAIN_WINDOW = 16
"""Side of the windows, px, half overlapping."""
GRAIN_FLOOR = 4e-5
"""Power of detail below which it counts as none: a standard deviation of 1.6 levels of 255."""


def log_grain(pixels: Tensor) -> Tensor:
    """Log amplitude of the detail of each band in windows: [B, 3, H, W] in [0, 1] -> [B, bands, h, w].

    In a smaller picture than a window, one window. What is fainter than the floor reads as nearly none.
    """
    window = min(GRAIN_WINDOW, *pixels.shape[-2:])
    rest, rows = pixels.float(), []
    for side in GRAIN_SIDES:
        fine = fine_texture(rest, side)
        power = fine.contiguous().square().mean(dim=1, keepdim=True)
        rows.append(F.avg_pool2d(power, window, stride=max(1, window // 2)))
        rest = rest - fine
    return 0.5 * torch.log(torch.cat(rows, dim=1) + GRAIN_FLOOR)


def grain_excess(pixels: Tensor, pixels_hr: Tensor) -> dict[str, Tensor]:
    """{"grain": mean of what the log amplitude of the result's detail has above its reference's}.

    pixels, pixels_hr: [B, 3, H, W] in [-1, 1]. Detail that is missing is not its business: asked for it as loudness, a
    network would make up noise.
    """
    result, reference = (log_grain(picture.mul(0.5).add(0.5)) for picture in (pixels, pixels_hr))
    return {"grain": F.relu(result - reference).mean()}


@loss("grain")
def _grain(step: SRStep) -> dict[str, Tensor]:
    return grain_excess(step.pixels, step.target)
