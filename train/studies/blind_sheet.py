"""Pairs of pictures without names, ours and a peer's, to say of each which one would be kept.

    python -m train blind --out runs/blind-1 --seed 1    sheets of pairs, votes.json to fill in, key.json to leave shut
    python -m train blind --peer realesrgan-x4fast       against another than Real-ESRGAN x4plus
    python -m train blind --against older.safetensors    against another checkpoint of ours, named as its file
    python -m train blind --count runs/blind-1 runs/blind-2    how the votes fell

A row is its number, the input, and the two results, in an order that the seed decides, as it decides the order of the
rows. Two seeds show the same pairs in two orders: votes that follow the picture, and not the side, agree.

`votes.json` gives "left" or "right" for every number. `key.json` says what each row showed.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically
from allosr2_core.image.write import save_image

from ..arguments import counting
from ..data.degradation import SCALE
from ..data.sources.photos import load_split
from ..evaluate.crops import evenly, load_photos
from ..evaluate.methods import OURS, Method, load_method, our_method
from ..evaluate.peers import PEERS
from ..loop.preview import tile_rows
from .contact_sheet import PEER, check_side, real_photos, real_row, test_row

log = logging.getLogger(__name__)

SIDES = ("left", "right")
ROWS = 4
"""Pairs of a sheet: as many as an eye takes in at the pictures' own size."""
LABEL = 40
"""Width of a row's number, px."""
KEY, VOTES = "key.json", "votes.json"
REAL = "real-lq/"
"""Begins the names of real low-quality photographs."""


@dataclass(frozen=True)
class Shown:
    """What a row shows."""

    picture: str
    """Split and name."""
    left: str
    right: str
    """The methods."""

    @property
    def peer(self) -> str:
        """The method beside ours."""
        return self.right if self.left == OURS else self.left


@dataclass(frozen=True)
class Votes:
    """The votes of a folder."""

    peer: str
    kept: dict[str, bool]
    """Picture -> whether ours was kept."""


def in_random_order(pictures: Sequence[str], seed: int, peer: str = PEER) -> list[tuple[int, Shown]]:
    """The rows of a sheet: indices into `pictures`, and what is left and right."""
    draw, rows = np.random.default_rng(seed), list[tuple[int, Shown]]()
    for index in map(int, draw.permutation(len(pictures))):
        left, right = (OURS, peer) if draw.integers(2) else (peer, OURS)
        rows.append((index, Shown(pictures[index], left, right)))
    return rows


def count(key: Mapping[str, Shown], votes: Mapping[str, str]) -> Votes:
    """Whose picture was kept. AlloSR2Error unless every row has a vote for one of its sides, and one peer is shown."""
    if missing := sorted(set(key) ^ set(votes), key=str):
        raise AlloSR2Error(f"expected a vote for each row of the key; they differ in {', '.join(missing[:9])}")
    for row, side in votes.items():
        if side not in SIDES:
            raise AlloSR2Error(f"expected left or right for row {row}; got {side!r}")
    peers = sorted({shown.peer for shown in key.values()})
    if len(peers) != 1:
        raise AlloSR2Error(f"expected a key with one peer; got {', '.join(peers) or 'no row'}")
    return Votes(peers[0], {shown.picture: getattr(shown, votes[row]) == OURS for row, shown in key.items()})


def read_votes(folder: Path) -> Votes:
    """`count` of a folder's key and votes."""
    try:
        key, votes = (dict(json.loads((folder / name).read_text())) for name in (KEY, VOTES))
        shown = {row: Shown(**value) for row, value in key.items()}
    except (OSError, ValueError, TypeError) as error:
        raise AlloSR2Error(f"expected {KEY} and {VOTES} of `python -m train blind` in {folder}: {error}") from error
    return count(shown, votes)


def told(folders: Mapping[str, Votes]) -> list[str]:
    """The counts of folders in words, a line each; then for each peer seen in several, in how many pairs they agree."""
    lines, orders = [], dict[str, list[dict[str, bool]]]()
    for name, votes in folders.items():
        real = [ours for picture, ours in votes.kept.items() if picture.startswith(REAL)]
        lines.append(
            f"{name}: ours kept in {sum(votes.kept.values())} of {len(votes.kept)} beside {votes.peer}, "
            f"real photographs {sum(real)} of {len(real)}"
        )
        orders.setdefault(votes.peer, []).append(votes.kept)
    for peer, several in orders.items():
        if len(several) > 1:
            first = several[0]
            same = sum(all(kept.get(picture) == ours for kept in several) for picture, ours in first.items())
            lines.append(f"the same picture kept in every order beside {peer}: {same} of {len(first)}")
    return lines


def another(checkpoint: Path) -> Method:
    """Another checkpoint as the peer, by its file's name. AlloSR2Error for the name that is ours."""
    if checkpoint.stem == OURS:
        raise AlloSR2Error(
            f"expected a file of another name than {OURS}, which stands for the checkpoint that is judged"
        )
    return replace(our_method(checkpoint), name=checkpoint.stem)


def _number(number: int, side: int) -> Tensor:
    """A row's number on white, [1, 3, side, LABEL]."""
    label = Image.new("L", (LABEL, side), 255)
    ImageDraw.Draw(label).text((4, side // 2 - 10), str(number), fill=0, font_size=20)
    grey = torch.frombuffer(bytearray(label.tobytes()), dtype=torch.uint8).reshape(1, 1, side, LABEL)
    return grey.float().div(255).expand(1, 3, side, LABEL)


def make(root: Path, out: Path, ours: Method, peer: Method, *, seed: int, crops: int, real: int, side: int) -> None:
    """Write sheets, key and an empty ballot. AlloSR2Error where there is a ballot already: votes are not made twice."""
    check_side(side)
    if (out / VOTES).exists():
        raise AlloSR2Error(f"expected a new folder; {out / VOTES} may have votes: choose another --out")
    methods = [ours, peer]
    photos = [photo for photo in load_photos(load_split(root / "photos", "test")) if min(photo.hr.shape[-2:]) >= side]
    rows = {f"test/{photo.name}": test_row(photo, methods, side)[:3] for photo in evenly(photos, crops)}
    for name, lr in evenly(real_photos(load_split(root / "photos", "real-lq"), side // SCALE), real):
        rows[f"{REAL}{name}"] = real_row(lr, methods, side)[:3]
    if not rows:
        raise AlloSR2Error(f"expected photographs of {side} px in {root / 'photos'}; run `python -m train photos`")
    pictures = list(rows)
    key, lines = dict[str, Shown](), list[list[Tensor]]()
    for number, (index, shown) in enumerate(in_random_order(pictures, seed, peer.name), start=1):
        source, first, second = rows[pictures[index]]
        key[str(number)] = shown
        pair = (first, second) if shown.left == OURS else (second, first)
        lines.append([_number(number, side), source, *pair])
    out.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(lines), ROWS):
        sheet = tile_rows(lines[first : first + ROWS])[0].permute(1, 2, 0)
        save_image(out / f"sheet-{first // ROWS + 1:02d}.png", sheet)
    _write(out / KEY, {row: asdict(shown) for row, shown in key.items()})
    _write(out / VOTES, dict.fromkeys(key, ""))
    log.info("%s: %d pairs; fill in %s before %s is opened", out, len(lines), VOTES, KEY)


def _write(path: Path, values: Mapping[str, object]) -> None:
    write_atomically(path, lambda file: file.write_text(json.dumps(values, indent=1) + "\n"))


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m train blind", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="default: the embedded checkpoint")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--peer", choices=tuple(PEERS), default=PEER, help=f"default: {PEER}")
    other.add_argument("--against", type=Path, metavar="FILE", help="another checkpoint of ours instead of a peer")
    parser.add_argument("--crops", type=counting, default=26, help="of test photographs")
    parser.add_argument("--real-lq", type=counting, default=14, help="real low-quality photographs")
    parser.add_argument("--side", type=int, default=256, help="of a picture, px, a multiple of 32")
    parser.add_argument("--seed", type=int, default=1, help="other seeds, other orders")
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs/blind"))
    parser.add_argument("--count", type=Path, nargs="+", metavar="FOLDER", help="folders whose votes are filled in")
    arguments = parser.parse_args(argv)
    if arguments.count:
        for line in told({folder.name: read_votes(folder) for folder in arguments.count}):
            log.info("%s", line)
        return 0
    make(
        arguments.root,
        arguments.out,
        load_method(OURS, arguments.root, arguments.checkpoint),
        another(arguments.against) if arguments.against else load_method(arguments.peer, arguments.root),
        seed=arguments.seed,
        crops=arguments.crops,
        real=arguments.real_lq,
        side=arguments.side,
    )
    return 0
