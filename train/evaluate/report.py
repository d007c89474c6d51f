"""From single measurements to the table of the model card.

Means over photos, except for lattice, repeat and checker, whose medians are given: a few photos of fences or fabric
carry a real grid.
Photos that are too small for a metric do not count in it.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from ..metrics import METRIC_NAMES

TITLES = {
    "psnr_y": "PSNR-Y dB",
    "ssim_y": "SSIM-Y",
    "st_lpips_vgg": "ST-LPIPS (vgg)",
    "hed_dists": "HED-DISTS",
    "vgg_dists": "VGG-DISTS",
    "lite_dists": "Lite-DISTS",
    "niqe": "NIQE",
    "lattice_4": "lattice 4",
    "lattice_8": "lattice 8",
    "lattice_16": "lattice 16",
    "repeat_4": "repeat 4",
    "checker": "checker",
}
DIGITS = {"psnr_y": 2, "niqe": 2, "lattice_4": 2, "lattice_8": 2, "lattice_16": 2, "repeat_4": 3, "checker": 3}
MEDIANS = frozenset({"lattice_4", "lattice_8", "lattice_16", "repeat_4", "checker"})
HIGHER_IS_BETTER = frozenset({"psnr_y", "ssim_y"})
REFERENCE = "HR"
BASELINE = "bicubic"


@dataclass(frozen=True)
class Record:
    """One measurement. For method REFERENCE the strength is empty and only no-reference metrics are there."""

    photo: str
    strength: str
    method: str
    values: dict[str, float]
    seconds: float  # of the restoration alone; NaN for the reference


@dataclass(frozen=True)
class Spread:
    """One metric over the photos that have it."""

    value: float  # the figure of the table: mean, or median for MEDIANS
    mean: float
    median: float
    deviation: float
    worst: float
    photos: int


def spread(name: str, values: Sequence[float]) -> Spread | None:
    """None when no photo has the metric."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None
    mean, median = statistics.fmean(known), statistics.median(known)
    return Spread(
        value=median if name in MEDIANS else mean,
        mean=mean,
        median=median,
        deviation=statistics.pstdev(known) if all(map(math.isfinite, known)) else math.nan,
        worst=min(known) if name in HIGHER_IS_BETTER else max(known),
        photos=len(known),
    )


def summarise(records: Iterable[Record]) -> dict[str, dict[str, dict[str, Spread]]]:
    """strength -> method -> metric -> Spread, in order of appearance."""
    collected: dict[str, dict[str, dict[str, list[float]]]] = {}
    for record in records:
        columns = collected.setdefault(record.strength, {}).setdefault(record.method, {})
        for name, value in record.values.items():
            columns.setdefault(name, []).append(value)
    return {
        strength: {
            method: {name: s for name, values in columns.items() if (s := spread(name, values)) is not None}
            for method, columns in methods.items()
        }
        for strength, methods in collected.items()
    }


def better_share(records: Sequence[Record], method: str, strength: str) -> dict[str, float]:
    """Share of photos on which `method` beats the bicubic baseline, per metric with a better direction."""
    chosen = [record for record in records if record.strength == strength]
    baseline = {record.photo: record.values for record in chosen if record.method == BASELINE}
    shares = {}
    for name in METRIC_NAMES[:5]:
        pairs = [
            (r.values[name], baseline[r.photo][name]) for r in chosen if r.method == method and r.photo in baseline
        ]
        pairs = [(a, b) for a, b in pairs if not (math.isnan(a) or math.isnan(b))]
        if pairs:
            shares[name] = sum(a > b if name in HIGHER_IS_BETTER else a < b for a, b in pairs) / len(pairs)
    return shares


def table(records: Sequence[Record]) -> str:
    """Markdown: one table per strength, the reference photos as last row."""
    summary = summarise(records)
    reference = summary.pop("", {}).get(REFERENCE, {})
    lines = []
    for strength, methods in summary.items():
        photos = len({record.photo for record in records if record.strength == strength})
        lines += [f"{strength}, {photos} photos", ""]
        lines.append("| method | " + " | ".join(TITLES[name] for name in METRIC_NAMES) + " |")
        lines.append("|---|" + "---:|" * len(METRIC_NAMES))
        for method, columns in [*methods.items(), (REFERENCE, reference)]:
            cells = [_cell(name, columns.get(name)) for name in METRIC_NAMES]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(name: str, column: Spread | None) -> str:
    return "" if column is None else f"{column.value:.{DIGITS.get(name, 4)}f}"


def report(records: Sequence[Record], context: dict[str, object]) -> dict[str, object]:
    """JSON-ready: `context`, the summary, and every single measurement."""
    summary = summarise(records)
    reference = summary.pop("", {}).get(REFERENCE, {})
    return {
        **context,
        "reference": {name: asdict(column) for name, column in reference.items()},
        "summary": {
            strength: {
                method: {
                    **{name: asdict(column) for name, column in columns.items()},
                    "better_than_bicubic": better_share(records, method, strength),
                }
                for method, columns in methods.items()
            }
            for strength, methods in summary.items()
        },
        "per_photo": [asdict(record) for record in records],
    }


def without_nan(value: object) -> object:
    """A copy with null for NaN and infinities, so that any JSON reader takes it."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
