"""What gives the same picture to the bit, what but for rounding, and what another one: the embedded checkpoint.

The centres of the photographs of tests/photos, four times larger, in fp32. `psnr` is the worst of them, in dB between
two results, and left out where all are equal; `max_abs_diff` the largest difference of a value, in parts of full scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.image.read import load_image
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline

from .measure import Row, max_difference

BENCH = "exactness"
PHOTOS = Path(__file__).resolve().parent.parent / "tests" / "photos"
SIDE, QUICK_SIDE = 200, 48
"""px of the input."""
T = 0.3
"""The time where two ways are compared that would guess it from different latents."""
WHOLE = 8192
"""px of a tile that every picture here fits into."""
Way = Callable[[Tensor], Tensor]


def run(quick: bool) -> Iterator[Row]:
    """One row for each pair of ways."""
    side = QUICK_SIDE if quick else SIDE
    photos = [_centre(load_image(path).rgb_HWC, side) for path in sorted(PHOTOS.glob("*.jpg"))]
    for name, (one, other) in _pairs(side, torch.cat(photos)).items():
        results = [(one(photo), other(photo)) for photo in photos]
        error = max(float((a - b).square().mean()) for a, b in results)
        largest = max(max_difference(a, b, full_scale=1.0) for a, b in results)
        figures = {"psnr": -10.0 * math.log10(error)} if error else None
        yield Row(BENCH, name, f"{4 * side} px", max_abs_diff=largest, figures=figures)


def _pairs(side: int, others: Tensor) -> dict[str, tuple[Way, Way]]:
    """What is compared, by name; `others`: pictures of the same size that a batch has beside one."""
    checkpoint = load_checkpoint(embedded_path())
    exact = Pipeline.from_checkpoint(checkpoint)

    def way(pipeline: Pipeline = exact, **options: float) -> Way:
        return lambda photo: pipeline.upscale(photo, UpscaleOptions(**{"t": T, "tile": WHOLE} | options))

    def in_a_batch(photo: Tensor) -> Tensor:
        return exact.upscale(torch.cat([others, photo]), UpscaleOptions())[-1:]

    def on_one_thread(photo: Tensor) -> Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return way()(photo)
        finally:
            torch.set_num_threads(before)

    bf16 = Pipeline.from_checkpoint(checkpoint, dtype=torch.bfloat16)
    small, smaller = 2 * side, side
    return {
        "the same call again": (way(), way()),
        "in a batch": (in_a_batch, lambda photo: exact.upscale(photo, UpscaleOptions())),
        "on one thread": (way(), on_one_thread),
        f"encode and decode in tiles of {smaller} px": (way(realism=0.0), way(realism=0.0, tile=smaller)),
        "flow in the checkpoint's own tiles": (way(), way(tile=0)),
        f"flow in tiles of {small} px": (way(), way(tile=small)),
        f"flow in tiles of {smaller} px": (way(), way(tile=smaller)),
        "shifted grid": (way(), way(shifted=True)),
        "bf16": (way(), way(bf16)),
    }


def _centre(photo_HWC: Tensor, side: int) -> Tensor:
    top, left = ((size - side) // 2 for size in photo_HWC.shape[:2])
    return photo_HWC[None, top : top + side, left : left + side]
