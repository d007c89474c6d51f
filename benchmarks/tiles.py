"""Would several tiles at a time pay, or a compiled network? The embedded flow on four tiles of a megapixel's size.

Cases take turns: the tiles one by one (what the pipeline does), two and four at a time, and one by one through
torch.compile where there is a C++ compiler. `ratio` is of seconds to those of one by one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.layout import flow_plan
from allosr2_core.pipeline import Pipeline

from .measure import Row, in_turns, medians, with_peak

log = logging.getLogger("benchmarks")
SIDE, QUICK_SIDE = 1024, 512
"""px of a result whose tiles are four, and of a smaller one cut into four."""
TILES = 4
ROUNDS, SECONDS = 9, 60.0
ONE = "1 at a time"
COMPILED = "1 at a time, compiled"


def run(quick: bool) -> list[Row]:
    """A row for each way: seconds for four tiles, and the MiB the process grows by."""
    upscaler = Pipeline.from_checkpoint(load_checkpoint(embedded_path()))
    cells = (QUICK_SIDE if quick else SIDE) // upscaler.config.latent_downscale
    plan = flow_plan(upscaler.config, cells, cells, QUICK_SIDE // 2 if quick else 0, 0 if quick else 64)
    z = torch.randn(TILES, upscaler.config.latent_channels, plan.tile_height, plan.tile_width)
    z, t = z.contiguous(memory_format=torch.channels_last), torch.full((TILES,), 0.3)
    velocity = upscaler.backend.velocity
    cases = {ONE: _through(velocity, z, t, 1)}
    cases |= {f"{count} at a time": _through(velocity, z, t, count) for count in (2, 4)}
    if not quick and shutil.which("g++"):
        cases[COMPILED] = _through(torch.compile(velocity), z, t, 1)
    elif not quick:
        log.warning("%s left out: torch.compile needs a C++ compiler (g++)", COMPILED)
    size = f"{TILES} tiles of {plan.tile_width * upscaler.config.latent_downscale} px"
    seconds = medians(in_turns(cases, rounds=ROUNDS, seconds=10.0 if quick else SECONDS))
    return [
        Row("tiles", name, size, seconds[name], with_peak(case)[1], ratio=seconds[name] / seconds[ONE], against=ONE)
        for name, case in cases.items()
    ]


def _through(velocity: Callable[..., Any], z: Tensor, t: Tensor, count: int) -> Callable[[], list[Tensor]]:
    return lambda: [velocity(part, times) for part, times in zip(z.split(count), t.split(count), strict=True)]
