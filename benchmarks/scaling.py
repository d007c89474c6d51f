"""How time and memory grow with the picture: the embedded checkpoint, from a quarter of a megapixel to 64.

`peak_mb` is what the process grows during the call, without the 12 bytes a pixel of the result; `grown_mb` has them in.
The input and the weights are there before.
"""

from __future__ import annotations

import torch

from allosr2_core.checkpoint import embedded_path, load_checkpoint
from allosr2_core.upscaler import Upscaler

from .measure import MEBI, Row, with_peak

SIDES = (512, 1024, 2048, 4096, 8192)
QUICK_SIDES = (512, 1024)
SCALE = 4


def run(quick: bool) -> list[Row]:
    """A row for each side of the (square) result: seconds a megapixel and MiB besides the result."""
    upscaler = Upscaler.from_checkpoint(load_checkpoint(embedded_path()))
    generator = torch.Generator().manual_seed(0)
    upscaler.upscale(torch.rand(1, 64, 64, 3, generator=generator))  # warm
    rows = []
    for side in QUICK_SIDES if quick else SIDES:
        image = torch.rand(1, side // SCALE, side // SCALE, 3, generator=generator)
        result, grown, seconds = with_peak(lambda image=image: upscaler.upscale(image, scale=SCALE))
        own, megapixels = result.numel() * result.element_size() / MEBI, side * side / 1e6
        del result
        figures = {"megapixels": megapixels, "seconds_per_megapixel": seconds / megapixels, "grown_mb": grown}
        rows.append(Row("scaling", "allosr2", f"{side} px", seconds, grown - own, figures=figures))
    return rows
