"""A penalty on the grid of patch edges that one-step results in patch latents tend to carry.

A picture has no reason to prefer one column phase over another; a decoder that paints patches does. The contrast of
the mean absolute gradient between phases is what users see as a fine lattice, and what the metric measures.
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
