"""A contact sheet to look at: input, Real-ESRGAN x4plus, ours and the photograph, side by side.

python -m train sheet [--out runs/contact-sheet.png] [--checkpoint FILE] [--crops 12] [--real-lq 8] [--free]

The upper rows are crops of test photographs, evenly spread over the split, degraded as `evaluate --strength real` does;
the lower ones are real low-quality photographs, which have no reference. Windows are the busiest part of each picture
by its Laplacian: where methods differ most. Inputs are enlarged by repeating pixels. `--free` keeps to photographs that
are CC0 or in the public domain, by the credits that came with them: such a sheet may be given away.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.read import load_image
from allosr2_core.image.write import save_image

from ..arguments import counting
from ..data.degradation import SCALE
from ..data.sources.photos import CREDITS, load_split, read_credits
from ..evaluate.crops import EvalPhoto, evenly, load_photos, low_resolution
from ..evaluate.methods import OURS, Method, load_method
from ..loop.preview import busiest_window, tile_rows
from ..metrics import quantise

log = logging.getLogger(__name__)
PEER = "realesrgan-x4plus"
GROUPS = 2
"""Rows side by side."""
CONTEXT = 128
"""Side of the part of a real low-quality photograph that is restored, px."""


def test_row(photo: EvalPhoto, methods: Sequence[Method], side: int) -> list[Tensor]:
    """Input, results and photograph, [1, 3, side, side] each."""
    lr = low_resolution(photo, "real")
    top, left = busiest_window(photo.hr[0], side, step=32)
    results = [quantise(method.restore(lr)) for method in methods]
    pictures = [F.interpolate(lr, scale_factor=SCALE, mode="nearest"), *results, photo.hr]
    return [picture[..., top : top + side, left : left + side] for picture in pictures]


def real_row(lr: Tensor, methods: Sequence[Method], side: int) -> list[Tensor]:
    """Input, results and white in the place of the photograph there is none of. lr: [1, 3, h, w]."""
    context = min(CONTEXT, *lr.shape[-2:])
    top, left = busiest_window(lr[0], context, step=context // 4)
    lr = lr[..., top : top + context, left : left + context]
    pictures = [F.interpolate(lr, scale_factor=SCALE, mode="nearest"), *(quantise(m.restore(lr)) for m in methods)]
    edge = (context * SCALE - side) // 2
    cut = [picture[..., edge : edge + side, edge : edge + side] for picture in pictures]
    return [*cut, torch.ones_like(cut[0])]


def _is_free(license_name: str) -> bool:
    """Whether a licence is CC0 or none at all, in the spellings packages use."""
    return license_name.lower().replace("-", " ").startswith(("cc0", "public domain"))


def _paths(photos: Path, split: str, *, free: bool) -> list[Path]:
    """Photographs of a split; `free`: those that may be given away."""
    paths = load_split(photos, split)
    if not free:
        return paths
    known = read_credits(photos / CREDITS)
    return [path for path in paths if _is_free(known.get(f"{split}/{path.name}", {}).get("license", ""))]


def real_photos(paths: Sequence[Path], smallest: int) -> list[tuple[str, Tensor]]:
    """Names and pixels [1, 3, h, w] of the real low-quality photographs of at least `smallest` px a side."""
    pictures = [(path.name, load_image(path).rgb_HWC.permute(2, 0, 1)[None].float()) for path in paths]
    return [(name, picture) for name, picture in pictures if min(picture.shape[-2:]) >= smallest]


def check_side(side: int) -> None:
    """AlloSR2Error for a side of the shown pictures, px, that the inputs' pixels and their context do not fill."""
    if side % 32 or not 32 <= side <= CONTEXT * SCALE:
        raise AlloSR2Error(f"expected a side that is a multiple of 32, up to {CONTEXT * SCALE}; got {side}")


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m train sheet", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="default: the embedded checkpoint")
    parser.add_argument("--crops", type=counting, default=12)
    parser.add_argument("--real-lq", type=int, default=8)
    parser.add_argument("--side", type=int, default=224, help="of a picture, px, a multiple of 32")
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs/contact-sheet.png"))
    parser.add_argument("--free", action="store_true", help="only CC0 and public domain")
    arguments = parser.parse_args(argv)
    side, root = arguments.side, arguments.root
    check_side(side)
    methods = [load_method(name, root, arguments.checkpoint) for name in (PEER, OURS)]
    test, real_lq = (_paths(root / "photos", split, free=arguments.free) for split in ("test", "real-lq"))
    usable = [photo for photo in load_photos(test) if min(photo.hr.shape[-2:]) >= side]
    rows = [test_row(photo, methods, side) for photo in evenly(usable, arguments.crops)]
    shown = evenly(real_photos(real_lq, side // SCALE), arguments.real_lq)
    real = [real_row(lr, methods, side) for _, lr in shown]
    if not rows + real:
        wanted = f"of at least {side} px{' whose credits say CC0 or public domain' if arguments.free else ''}"
        command = "`python -m train photos` fetches them and their credits"
        raise AlloSR2Error(f"expected photographs {wanted} in {root / 'photos'}; there are none: {command}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_image(arguments.out, tile_rows(rows + real, GROUPS)[0].permute(1, 2, 0))
    log.info("%s: input, %s, ours, photograph; the last %d rows are real", arguments.out, PEER, len(real))
    return 0
