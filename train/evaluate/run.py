"""`python -m train evaluate`: our checkpoint beside its peers, on photos none of the training saw.

    python -m train evaluate --split test                          the full table (x4plus takes its time the first time)
    python -m train evaluate --strength real --limit 8 --methods bicubic,allosr2      a quick look
    python -m train evaluate --drawings text           made pictures instead, which no training saw either
    python -m train evaluate --factor 2                inputs of half the size instead of a quarter
    python -m train evaluate --json > figures.json                 everything, down to single photos
    python -m train evaluate --out runs/eval                       table.md, figures.json and strips to look at

Every picture is rounded to 8 bit before it is measured. Results are kept under <root>/eval-cache and found again as
long as the weights, the settings, the photos and the code they depend on are the same. What they mean: train/metrics.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from allosr2_core.checkpoint.format import embedded_path
from allosr2_core.cli.option_arguments import add_options, options_of
from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.write import save_image
from allosr2_core.options import OPTIONS

from ..arguments import choices, counting
from ..data.degradation import STRENGTHS, Strength
from ..data.drawings.folder import KINDS, load_drawings
from ..data.sources.photos import load_split
from ..downloads.wheels import sha256_of
from ..metrics import MetricSuite, load_metric_suite
from ..metrics.suite import METRICS_VERSION, Reference
from .crops import CROP, SCALE, EvalPhoto, evenly, load_photos, low_resolution, tensor_digest
from .methods import ANY_FACTOR, AT_SIZE, METHODS, OURS, Method, ResultStore, load_method
from .report import REFERENCE, Record, report, table, without_nan

log = logging.getLogger(__name__)

FACTORS = (1, 2, 4)
"""That results can be asked for."""


def evaluate(
    photos: Iterable[EvalPhoto],
    strengths: Sequence[Strength],
    methods: Sequence[Method],
    suite: MetricSuite,
    store: ResultStore,
    pictures: Path | None = None,
    factor: int = SCALE,
) -> list[Record]:
    """Measure every method on every photo at every strength; also every reference crop by itself.

    Args:
        pictures: folder for one strip per photo and strength (methods in order, then the reference); None: none.
        factor: how many times larger results are than the inputs; the methods' own.
    """
    records: list[Record] = []
    for photo in photos:
        started = time.perf_counter()
        records.append(Record(photo.name, "", REFERENCE, suite.measure_alone(photo.hr), float("nan")))
        measured = _PhotoMeasurer(photo, suite, store)
        for strength in strengths:
            lr = low_resolution(photo, strength, factor)
            strip: list[Tensor] = []
            for method in methods:
                record, sr = measured.run(method, lr, strength, want_picture=pictures is not None)
                records.append(record)
                strip += [sr] if sr is not None else []
            if pictures is not None:
                _save_strip(pictures / strength / f"{photo.name}.png", [*strip, photo.hr])
        log.info("%s: %.1f s", photo.name, time.perf_counter() - started)
    return records


class _PhotoMeasurer:
    """Measures methods on one photo; the reference's feature maps are made at most once, when a result is missing."""

    def __init__(self, photo: EvalPhoto, suite: MetricSuite, store: ResultStore) -> None:
        self.photo, self.suite, self.store = photo, suite, store
        self.reference: Reference | None = None

    def run(self, method: Method, lr: Tensor, strength: str, want_picture: bool) -> tuple[Record, Tensor | None]:
        made_key = self.store.restored_key(method, tensor_digest(lr))
        measured_key = self.store.measured_key(made_key, self.photo.digest)
        made, values = self.store.load(made_key), self.store.load(measured_key)
        sr = None
        if made is None or values is None or want_picture:
            sr, made = self.store.restored(method, lr, self.photo.hr.shape)
            if values is None:
                values = self._measure(sr)
                self.store.save(measured_key, values)
        return Record(self.photo.name, strength, method.name, values, made["seconds"]), sr if want_picture else None

    def _measure(self, sr: Tensor) -> dict[str, float]:
        if self.reference is None:
            self.reference = self.suite.reference(self.photo.hr)
        return self.suite.measure(sr, self.reference)


def _save_strip(path: Path, pictures: Sequence[Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, torch.cat(list(pictures), dim=3)[0].permute(1, 2, 0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train evaluate", description="Figures beside the peers.")
    parser.add_argument("--split", default="test", help="photos of this split (default: test)")
    parser.add_argument("--drawings", choices=KINDS, help="made pictures of this kind instead of photos")
    parser.add_argument("--checkpoint", type=Path, help="default: the embedded checkpoint")
    parser.add_argument(
        "--factor", type=int, choices=FACTORS, default=SCALE, help="size of results over that of inputs (default: 4)"
    )
    parser.add_argument(
        "--methods",
        type=choices((*METHODS, AT_SIZE)),
        help=f"default: {','.join(METHODS)}; at other factors than 4: {','.join(ANY_FACTOR)}",
    )
    parser.add_argument("--strength", type=choices(STRENGTHS), default=STRENGTHS, help=f"of {','.join(STRENGTHS)}")
    parser.add_argument(
        "--reduce", type=int, default=1, help="large photos are first made so many times smaller: soft ones turn sharp"
    )
    parser.add_argument("--limit", type=counting, help="at most so many photos, evenly spread over the split")
    add_options(parser, [name for name in OPTIONS if name not in ("scale", "long_edge")])
    parser.add_argument("--threads", type=counting, help="torch threads (default: torch's own choice)")
    parser.add_argument("--root", type=Path, default=Path("data"), help="data folder (default: data)")
    parser.add_argument("--out", type=Path, help="folder for table.md, figures.json and one strip per photo")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of the table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the table (or JSON) goes to standard output, progress to the log."""
    args = _parser().parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise AlloSR2Error(f"expected --limit of at least 1, got {args.limit}")
    if args.reduce < 1:
        raise AlloSR2Error(f"expected --reduce of at least 1, got {args.reduce}")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.drawings:
        paths = load_drawings(args.root / "drawings", args.split, args.drawings)
    else:
        paths = load_split(args.root / "photos", args.split)
    options = options_of(args, scale=float(args.factor))
    names = args.methods or (METHODS if args.factor == SCALE else ANY_FACTOR)
    methods = [load_method(name, args.root, args.checkpoint, options) for name in names]
    store = ResultStore(args.root / "eval-cache")
    suite = load_metric_suite(args.root)
    pictures = args.out / "pictures" if args.out else None
    photos = load_photos(evenly(paths, args.limit), args.reduce)
    records = evaluate(photos, args.strength, methods, suite, store, pictures, args.factor)
    used = {record.photo for record in records}
    context = {
        "split": args.split,
        "drawings": args.drawings,
        "photos": len(used),
        "left_out": sorted({path.name for path in evenly(paths, args.limit)} - used),
        "crop": CROP,
        "reduce": args.reduce,
        "scale": args.factor,
        "metrics_version": METRICS_VERSION,
        "checkpoint": _describe(args.checkpoint) if {OURS, AT_SIZE} & set(names) else None,
        "settings": asdict(options),
    }
    figures = json.dumps(without_nan(report(records, context)), indent=1)
    text = table(records)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "figures.json").write_text(figures + "\n")
        (args.out / "table.md").write_text(text + "\n")
    sys.stdout.write((figures if args.json else text) + "\n")
    return 0


def _describe(checkpoint: Path | None) -> dict[str, str]:
    path = checkpoint or embedded_path()
    return {"file": path.name, "sha256": sha256_of(path)}
