"""`python -m train drawings`: make the pictures with exact edges that training and its measurements use.

    data/drawings/train, val, test     PNG, `text-0003.png` (pages, posters, captions, signs, screens) and
                                       `line-0003.png` (icons, charts, diagrams, patterns, fine lines, flat shapes)
    data/drawings/recipe.json          seed and sizes; a folder made otherwise is refused
    data/packages                      fonts and vector drawings as fetched (drawings.json), reused by the next run

A picture is a function of the seed, its split and its name: more can be made later, and those that are there are kept.
Behind some lie photographs of the same split (`python -m train photos`).

Held out: validation and test have other fonts, other drawings, other photographs and other words than training. The
test pictures also come from families that training has none of (held_out.py).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically

from ...arguments import counting
from ...config import Config
from ...config_file import load_config
from ..crops import derive_seed
from ..sources.photos import load_split
from . import diagrams, held_out, icons, lines, patterns, plots, screens, text
from .assets import SPLITS, Assets, fetch, load_assets, load_manifest
from .kit import Kit

log = logging.getLogger(__name__)

COMMAND = "python -m train drawings"
RECIPE = "recipe.json"
Family = Callable[[Kit], Image.Image]
TRAINED: dict[str, tuple[Family, ...]] = {
    "text": (text.page, text.poster, text.caption, text.sign, screens.screen),
    "line": (
        icons.drawing,
        plots.plot,
        patterns.bricks,
        lines.grid,
        icons.icons,
        diagrams.flowchart,
        patterns.facade,
        lines.ropes,
        icons.drawing,
        diagrams.technical,
        patterns.tiles,
        lines.shapes,
        lines.street_map,
        patterns.fence,
        lines.halftone,
    ),
}
"""Families of the training and validation pictures by kind, in the order they take turns."""
TESTED: dict[str, tuple[Family, ...]] = {
    "text": (text.page, text.poster, text.caption, text.sign, held_out.timetable),
    "line": (
        icons.drawing,
        held_out.radar,
        held_out.circuit,
        held_out.score,
        icons.icons,
        held_out.contours,
        held_out.honeycomb,
        held_out.rosette,
    ),
}


def families(split: str) -> dict[str, tuple[Family, ...]]:
    """What the pictures of a split are made by, by kind."""
    return TESTED if split == "test" else TRAINED


def picture(assets: Assets, split: str, kind: str, index: int, side: int, seed: int) -> Image.Image:
    """The picture `index` of a kind, RGB [side, side]."""
    own = families(split)[kind]
    kit = Kit(derive_seed(seed, split, kind, index), assets, side, held_out=split != "train")
    return own[index % len(own)](kit)


def names(count: int) -> list[tuple[str, int]]:
    """Kinds and numbers of `count` pictures, the kinds in turn: five of a kind more or fewer change no other."""
    kinds = tuple(TRAINED)
    return [(kinds[index % len(kinds)], index // len(kinds)) for index in range(count)]


def make(assets: Assets, split: str, folder: Path, count: int, side: int, seed: int) -> int:
    """Write the pictures of a split that are not in its folder yet, each atomically; how many were made."""
    made = 0
    for kind, index in names(count):
        target = folder / f"{kind}-{index:04}.png"
        if target.exists():
            continue
        image = picture(assets, split, kind, index, side, seed)
        write_atomically(target, partial(image.save, format="PNG"))
        made += 1
        if made % 50 == 0:
            log.info("%s: %d of %d", split, made, count)
    return made


def check_recipe(out: Path, recipe: dict[str, int]) -> None:
    """Note what the folder is made with. Raises AlloSR2Error where it was made with something else."""
    path = out / RECIPE
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise AlloSR2Error(f"{path}: expected JSON, got {error}") from error
        if there != recipe:
            raise AlloSR2Error(f"{out} holds pictures made with {there}, expected {recipe}: choose another --out")
    text = json.dumps(recipe) + "\n"
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def trains_on(config: Config, folder: Path) -> bool:
    """Whether a source of the configuration lies in a folder."""
    return any(Path(source.hr).resolve().is_relative_to(folder.resolve()) for source in config.data.sources)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m train drawings`; 0 when every picture is there."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Make pictures with exact edges.")
    parser.add_argument(
        "--out", type=Path, default=Path("data/drawings"), help="where they go (default: data/drawings)"
    )
    parser.add_argument("--photos", type=Path, default=Path("data/photos"), help="photographs (default: data/photos)")
    parser.add_argument("--packages", type=Path, default=Path("data/packages"), help="folder of fetched packages")
    for split, count in zip(SPLITS, (400, 24, 80), strict=True):
        parser.add_argument(f"--{split}", type=int, default=count, metavar="N", help=f"pictures (default: {count})")
    parser.add_argument(
        "--side", type=counting, default=768, help="of training and validation pictures, px (default: 768)"
    )
    parser.add_argument("--test-side", type=counting, default=512, help="of test pictures, px (default: 512)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds, other pictures (default: 0)")
    parser.add_argument(
        "--for",
        type=Path,
        dest="config",
        metavar="CONFIG",
        help="only if this configuration trains on pictures in --out",
    )
    args = parser.parse_args(argv)
    if args.config is not None and not trains_on(load_config(args.config), args.out):
        log.info("%s trains on nothing in %s", args.config, args.out)
        return 0
    sides = {"train": args.side, "val": args.side, "test": args.test_side}
    for split in SPLITS:
        if getattr(args, split) < 0 or sides[split] < 128:
            raise AlloSR2Error(
                f"{split}: expected no fewer than 0 pictures of 128 px or more, got {getattr(args, split)}"
            )
    check_recipe(args.out, {"seed": args.seed, "side": args.side, "test_side": args.test_side})
    packages = load_manifest()
    archives = fetch(packages, args.packages)
    for split in SPLITS:
        count = getattr(args, split)
        if not count:
            continue
        assets = load_assets(split, archives, packages, load_split(args.photos, split))
        made = make(assets, split, args.out / split, count, sides[split], args.seed)
        log.info("%s: %d pictures, %d of them made", split, count, made)
    return 0
