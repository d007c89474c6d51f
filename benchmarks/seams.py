"""Can one see where the flow was cut? The embedded checkpoint on test photographs, in tiles and in one piece.

`seam` is the mean absolute gradient across the borders of the tiles over that across all other columns and rows: about
1 where nothing shows. It is taken of the tiled result, and of the untiled one at the same places, which says what the
photographs have there by themselves. `apart` is their relative difference. A border is where a tile begins or ends,
and the middle of what it shares with the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.layout import flow_plan
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from allosr2_core.tiling.blended import TilePlan
from train.data.degradation import SCALE
from train.data.sources.photos import load_split
from train.evaluate.crops import evenly, load_photos, low_resolution
from train.metrics.lattice import lattice

from .measure import Row

ROOT = Path("data")
SIDE, TILE = 512, 192
"""px of the result and of its tiles: 3 x 3 of them at an overlap of 24."""
OVERLAPS = (0, 24, 64)
"""px. 24 is an eighth of a tile, as the default 64 is of 512."""
PHOTOS, QUICK_PHOTOS = 16, 4


def run(quick: bool) -> list[Row]:
    """For each overlap the medians over photographs, tiled and untiled."""
    upscaler = Pipeline.from_checkpoint(load_checkpoint(embedded_path()))
    found: dict[int, list[dict[str, float]]] = {overlap: [] for overlap in OVERLAPS}
    for lr in _pictures(QUICK_PHOTOS if quick else PHOTOS):
        with torch.inference_mode():
            whole = upscaler.upscale(lr, UpscaleOptions(scale=SCALE, tile=2 * SIDE))
            for overlap in OVERLAPS:
                tiled = upscaler.upscale(lr, UpscaleOptions(scale=SCALE, tile=TILE, overlap=overlap))
                found[overlap].append(_figures(tiled, whole, _plan(upscaler, overlap)))
    return [
        Row(
            "seams",
            f"overlap {overlap} px",
            f"{TILE} px tiles, {SIDE} px",
            max_abs_diff=max(values["max_abs_diff"] for values in rows),
            figures={name: statistics.median(v[name] for v in rows) for name in rows[0] if name != "max_abs_diff"},
        )
        for overlap, rows in found.items()
    ]


def _pictures(count: int) -> Iterator[Tensor]:
    """Centres of test photographs with the degradation `real`, [1, SIDE / 4, SIDE / 4, 3]."""
    for photo in load_photos(evenly(load_split(ROOT / "photos", "test"), count)):
        lr = low_resolution(photo, "real").movedim(1, -1)
        side = SIDE // SCALE
        if min(lr.shape[1:3]) >= side:
            yield lr[:, :side, :side]


def _plan(upscaler: Pipeline, overlap: int) -> TilePlan:
    """The tiles, in px of the result."""
    down = upscaler.config.latent_downscale
    return flow_plan(upscaler.config, SIDE // down, SIDE // down, TILE, overlap).scaled(down)


def _figures(tiled: Tensor, whole: Tensor, plan: TilePlan) -> dict[str, float]:
    starts, ends = plan.lefts[1:], [start + plan.tile_width for start in plan.lefts[:-1]]
    borders = sorted({*starts, *ends, *((a + b) // 2 for a, b in zip(starts, ends, strict=True))})
    seam, by_itself = (_seam(picture, borders) for picture in (tiled, whole))
    figures = {"seam": seam, "untiled": by_itself, "apart": seam / by_itself - 1.0}
    for period in (4, 16):
        both = (float(lattice(picture.movedim(-1, 1), period)) for picture in (tiled, whole))
        figures[f"lattice{period}"], figures[f"lattice{period}_untiled"] = both
    return figures | {"max_abs_diff": float((tiled - whole).abs().max())}


def _seam(picture_1HWC: Tensor, borders: Sequence[int]) -> float:
    """Gradient across the borders over that elsewhere, both axes. A border at n lies between n - 1 and n."""
    at = torch.zeros(picture_1HWC.shape[1] - 1, dtype=torch.bool)
    at[[border - 1 for border in borders]] = True
    across = picture_1HWC.diff(dim=2).abs().mean(dim=(0, 1, 3))
    down = picture_1HWC.diff(dim=1).abs().mean(dim=(0, 2, 3))
    return float(torch.stack([across[at], down[at]]).mean() / torch.stack([across[~at], down[~at]]).mean())
