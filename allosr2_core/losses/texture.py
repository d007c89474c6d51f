"""Local texture energy: as much fine detail as the photograph has, in the same places, whatever its exact phase.

A distance between pictures answers what it cannot know with the mean of all guesses, which has no fine detail. The
energy of a band in a small window can be known (grass is rough, sky is smooth) where the phase of its waves cannot, and
matching it costs a rough guess nothing. On a logarithmic scale smooth windows count as much as rough ones, so noise
and mosaics left on a smooth area are seen as well. Ours; not part of the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 16
"""Side of the windows in px of their own level; they overlap by half."""
NOISE_FLOOR = 0.01
"""Amplitude, in [-1, 1] pixels, under which detail is not told from none: about 1.3 of 255 grey levels."""
LUMA = (0.299, 0.587, 0.114)


def band_energies(pixels: Tensor, bands: int) -> list[Tensor]:
    """Log energy of the finest `bands` octaves of luma in overlapping windows: [B, 3, H, W] -> each [B, 1, h, w].

    pixels in [-1, 1], H and W at least WINDOW * 2^(bands - 1). A band is what a 2x box average followed by bilinear
    enlargement loses: above 0.25 cycles/px for the first, an octave lower for each next one.
    """
    weights = torch.tensor(LUMA, device=pixels.device, dtype=torch.float32)
    level = (pixels.float() * weights[None, :, None, None]).sum(dim=1, keepdim=True)
    energies = []
    for _ in range(bands):
        height, width = level.shape[-2] // 2 * 2, level.shape[-1] // 2 * 2
        level = level[..., :height, :width]
        coarse = F.avg_pool2d(level, 2)
        detail = level - F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        power = F.avg_pool2d(detail.square(), WINDOW, stride=WINDOW // 2)
        energies.append((power + NOISE_FLOOR**2).log())
        level = coarse
    return energies


def texture_energy(pixels: Tensor, pixels_hr: Tensor, bands: int = 3) -> dict[str, Tensor]:
    """{"texture": mean |log energy of the result - of its reference|} over windows, averaged over the bands; nepers.

    pixels, pixels_hr: [B, 3, H, W] in [-1, 1]. Gradients flow into `pixels` only.
    """
    with torch.no_grad():
        wanted = band_energies(pixels_hr, bands)
    found = band_energies(pixels, bands)
    return {"texture": torch.stack([(x - y).abs().mean() for x, y in zip(found, wanted, strict=True)]).mean()}
