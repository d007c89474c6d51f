"""Time and memory at other factors than the trained one: one input, enlarged by each, by the embedded checkpoint.

`grown_mb` is what the process grows during the call, the result included; `ratio` is the time against a factor of 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline

from .measure import Row, with_peak

FACTORS = (4.0, 1.0, 2.0, 3.0, 6.0, 8.0)
TRAINED = "at 4"


def run(quick: bool, sizes: Sequence[int] = ()) -> Iterator[Row]:
    """A row for each factor, for each side of the (square) input in px."""
    upscaler = Pipeline.from_checkpoint(load_checkpoint(embedded_path()))
    generator = torch.Generator().manual_seed(0)
    upscaler.upscale(torch.rand(1, 64, 64, 3, generator=generator))  # warm
    for side in sizes or ((96,) if quick else (256, 512)):
        image = torch.rand(1, side, side, 3, generator=generator)
        trained = 0.0
        for factor in FACTORS:
            _, grown, seconds = with_peak(
                lambda image=image, factor=factor: upscaler.upscale(image, UpscaleOptions(scale=factor))
            )
            trained = trained or seconds
            figures = {"grown_mb": grown}
            name, ratio = f"at {factor:g}", seconds / trained
            yield Row("factors", name, f"{side} px", seconds, ratio=ratio, against=TRAINED, figures=figures)
