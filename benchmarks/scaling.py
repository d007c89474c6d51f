"""How time and memory grow with the picture: the embedded checkpoint, from a quarter of a megapixel to 64.

XX
The input and the weights are there before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from allosr2_core import precision
from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline

from .measure import MEBI, Row, with_peak

SIDES = (512, 1024, 2048, 4096, 8192)
QUICK_SIDES = (512, 1024)
SCALE = 4


def run(quick: bool, sizes: Sequence[int] = ()) -> Iterator[Row]:
    """A row for each side of the (square) result: seconds a megapixel and MiB besides the result."""
    upscaler = Pipeline.from_checkpoint(load_checkpoint(embedded_path()), dtype=precision.auto(torch.device("cpu")))
    generator = torch.Generator().manual_seed(0)
    upscaler.upscale(torch.rand(1, 64, 64, 3, generator=generator))  # warm
    for side in sizes or (QUICK_SIDES if quick else SIDES):
        image = torch.rand(1, side // SCALE, side // SCALE, 3, generator=generator)
        result, grown, seconds = with_peak(lambda image=image: upscaler.upscale(image, UpscaleOptions(scale=SCALE)))
        own, megapixels = result.numel() * result.element_size() / MEBI, side * side / 1e6
        del result
        figures = {"megapixels": megapixels, "seconds_per_megapixel": seconds / megapixels, "grown_mb": grown}
        yield Row("scaling", "allosr2", f"{side} px", seconds, grown - own, figures=figures)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Seconds a megapixel and MiB besides the result, over megapixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    figures = [row.figures or {} for row in rows]
    megapixels = [f["megapixels"] for f in figures]
    curves = {
        "seconds a megapixel": [f["seconds_per_megapixel"] for f in figures],
        "MiB besides the result": [row.peak_mb or 0.0 for row in rows],
    }
    for axes, (label, values) in zip(figure.subplots(1, 2), curves.items(), strict=True):
        axes.plot(megapixels, values, marker="o", color="#1f6f8b")
        axes.set_xscale("log")
        axes.set_xlabel("megapixels of the result")
        axes.set_title(label, fontsize=10)
        axes.set_ylim(0, 1.25 * max(values))
        axes.grid(alpha=0.3)
    figure.savefig(path)
