"""What a method adds to a picture, by its fineness: as much as the photograph has, and the photograph's own or not.

    python -m train spectrum --split test --strength real --methods allosr2,realesrgan-x4fast,realesrgan-x4plus

For each strength and method, two rows of medians over the photographs: `energy`, the result's over the photograph's,
and `correlation` of the two, in bands of spatial frequency. Crops, inputs and stored results are those of `evaluate`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from allosr2_core.errors import AlloSR2Error

from ..arguments import choices, counting
from ..data.degradation import STRENGTHS
from ..data.sources.photos import load_split
from ..evaluate.crops import CROP_MINIMUM, evenly, load_photos, low_resolution
from ..evaluate.methods import METHODS, ResultStore, load_method
from ..metrics.spectrum import EDGES, BandSpectrum, band_spectrum


def rows(strength: str, method: str, spectra: Sequence[BandSpectrum]) -> list[str]:
    """The two lines of a method: medians over photographs."""
    lines = []
    for name in ("energy", "correlation"):
        medians = [statistics.median(values) for values in zip(*(getattr(one, name) for one in spectra), strict=True)]
        lines.append(f"| {strength} | {method} | {name} | {' | '.join(f'{value:.2f}' for value in medians)} |")
    return lines


def header() -> list[str]:
    """The first two lines of the table: bands by their periods in px, coarse to fine."""
    bands = [f"{1 / low:.2g} to {1 / high:.2g} px" for low, high in zip(EDGES[:-1], EDGES[1:], strict=True)]
    return [f"| strength | method | | {' | '.join(bands)} |", f"|---|---|---|{'---:|' * len(bands)}"]


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m train spectrum", description=__doc__)
    parser.add_argument("--split", default="test", help="photos of this split (default: test)")
    parser.add_argument("--checkpoint", type=Path, help="default: the embedded checkpoint")
    parser.add_argument("--methods", type=choices(METHODS), default=METHODS, help=f"default: {','.join(METHODS)}")
    parser.add_argument("--strength", type=choices(STRENGTHS), default=STRENGTHS, help=f"of {','.join(STRENGTHS)}")
    parser.add_argument("--reduce", type=counting, default=1, help="large photos are first made so many times smaller")
    parser.add_argument("--limit", type=counting, help="at most so many photos, evenly spread over the split")
    parser.add_argument("--root", type=Path, default=Path("data"), help="data folder (default: data)")
    args = parser.parse_args(argv)
    methods = [load_method(name, args.root, args.checkpoint) for name in args.methods]
    store = ResultStore(args.root / "eval-cache")
    photos = list(load_photos(evenly(load_split(args.root / "photos", args.split), args.limit), args.reduce))
    if not photos:
        raise AlloSR2Error(f"expected photographs of {CROP_MINIMUM} px or more in {args.split}; there are none")
    lines = header()
    for strength in args.strength:
        inputs = [low_resolution(photo, strength) for photo in photos]
        for method in methods:
            spectra = [
                band_spectrum(store.restored(method, lr, photo.hr.shape)[0], photo.hr)
                for lr, photo in zip(inputs, photos, strict=True)
            ]
            lines += rows(strength, method.name, spectra)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
