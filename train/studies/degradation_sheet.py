"""A contact sheet of what the degradations do: one row per strength, the photograph first, then random draws.

python -m train degradations [PHOTO ...] [--out sheet.jpg] [--columns 6] [--side 192] [--seed 0]

Without a photograph the busiest parts of validation photographs are shown. Inputs are enlarged by repeating pixels, so
that one sees what they hold.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.read import load_image
from allosr2_core.image.write import save_image

from ..arguments import counting
from ..config_file import load_config
from ..data.crops import derive_seed
from ..data.degradation import SCALE, STRENGTHS, Strength, degrade
from ..loop.preview import busiest_crop, tile_rows, validation_crops

log = logging.getLogger(__name__)
ROWS: tuple[tuple[Strength, bool], ...] = tuple(
    (strength, extended) for strength in STRENGTHS for extended in (False, True)
)


def sheet(pictures: list[Tensor], columns: int, seed: int) -> Tensor:
    """[3, H, W]: rows of photograph and inputs for every strength, as published and extended.

    pictures: [1, 3, s, s] in [0, 1].
    """
    rows = []
    for row, (strength, extended) in enumerate(ROWS):
        hr = pictures[row % len(pictures)]
        cells = [hr]
        for column in range(columns):
            rng = torch.Generator().manual_seed(derive_seed(seed, strength, str(extended), column))
            lr = degrade(hr, strength, rng, SCALE, extended=extended)
            cells.append(F.interpolate(lr, scale_factor=SCALE, mode="nearest"))
        rows.append(cells)
    return tile_rows(rows)[0]


def _open(path: Path, side: int) -> Tensor:
    rgb_HWC = load_image(path).rgb_HWC
    height, width = rgb_HWC.shape[:2]
    if min(height, width) < 32:
        raise AlloSR2Error(f"{path.name}: expected at least 32 px a side; got {width}x{height}")
    return busiest_crop(rgb_HWC.mul(255).round().byte().numpy(), side)


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m train degradations", description=__doc__)
    parser.add_argument("photos", type=Path, nargs="*")
    parser.add_argument("--config", type=Path, default=Path("train/configs/mini.toml"))
    parser.add_argument("--out", type=Path, default=Path("runs/degradations.jpg"))
    parser.add_argument("--columns", type=counting, default=6)
    parser.add_argument("--side", type=counting, default=192)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.photos:
        pictures = [_open(path, arguments.side) for path in arguments.photos]
    else:
        pictures = validation_crops(load_config(arguments.config), arguments.side, busiest_crop)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_image(arguments.out, sheet(pictures, arguments.columns, arguments.seed).permute(1, 2, 0))
    rows = ", ".join(f"{strength}{' extended' if extended else ''}" for strength, extended in ROWS)
    log.info("%s: rows from the top: %s", arguments.out, rows)
    return 0
