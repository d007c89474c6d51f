"""What each setting costs: one input, four times larger, by the embedded checkpoint, one setting changed at a time.

Cases take turns. `peak_mb` is what the process grows during a call, the result included; `ratio` is of seconds to those
of the settings as they are by themselves, in what `--dtype auto` computes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from allosr2_core import precision
from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline

from .measure import Row, in_turns, medians, with_peak

BENCH = "settings"
USUAL = "as they are"
SIDE, QUICK_SIDE = 256, 48
"""px of the input."""
ROUNDS, SECONDS = 5, 120.0
OPTIONS: dict[str, dict[str, Any]] = {
    USUAL: {},
    "scale 2": {"scale": 2.0},
    "scale 8": {"scale": 8.0},
    "realism 0.5": {"realism": 0.5},
    "t 0.2": {"t": 0.2},
    "tile 256": {"tile": 256},
    "tile 128": {"tile": 128},
    "overlap 128": {"overlap": 128},
    "shifted": {"shifted": True},
    "color wavelet": {"color": "wavelet"},
    "color lab": {"color": "lab"},
}
"""What differs, by name."""


def run(quick: bool, sizes: Sequence[int] = ()) -> Iterator[Row]:
    """A row for each setting, for each side of the (square) input in px."""
    checkpoint = load_checkpoint(embedded_path())
    usual = precision.auto(torch.device("cpu"))
    pipelines = {dtype: Pipeline.from_checkpoint(checkpoint, dtype=dtype) for dtype in {usual, torch.float32}}
    for side in sizes or ((QUICK_SIDE if quick else SIDE),):
        image = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0))

        def case(pipeline: Pipeline, image: torch.Tensor = image, **options: Any) -> Callable[[], torch.Tensor]:
            return lambda: pipeline.upscale(image, UpscaleOptions(**options))

        cases = {name: case(pipelines[usual], **options) for name, options in OPTIONS.items()}
        cases["a mask"] = lambda image=image: pipelines[usual].upscale(image, mask=image[..., 0])
        if usual != torch.float32:
            cases["dtype fp32"] = case(pipelines[torch.float32])
        seconds = medians(in_turns(cases, rounds=1 if quick else ROUNDS, seconds=SECONDS))
        for name, function in cases.items():
            peak, ratio = with_peak(function)[1], seconds[name] / seconds[USUAL]
            yield Row(BENCH, name, f"{side} px", seconds[name], peak, ratio=ratio, against=USUAL)
