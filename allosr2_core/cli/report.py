"""What `upscale` says of its pictures: a line each, a summary, and the same as JSON."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import AlloSR2Error
from ..files import write_atomically
from .names import ImagePair
from .survey import Planned

DONE, FAILED, SKIPPED = "done", "failed", "skipped"


@dataclass(frozen=True)
class Record:
    """What became of one picture."""

    pair: ImagePair
    status: str
    """DONE, FAILED or SKIPPED."""
    planned: Planned | None = None
    """None where its header could not be read or its result not be stored."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str | None = None
    dtype: str | None = None
    """What its networks computed in, where it was done."""
    device: str | None = None
    """Where they ran."""

    def line(self) -> str:
        """One line on a result."""
        text = f"{self.pair.source} -> {self.pair.target}"
        if self.planned is not None:
            header = self.planned.header
            text += f"  {header.width}x{header.height} -> {self.planned.width}x{self.planned.height}"
            text += f"  {self.planned.frames} frames" if self.planned.frames > 1 else ""
            text += "  16 bit" if self.planned.bits == 16 else ""
        text = f"{text}  {self.seconds:.1f} s" + ("" if self.dtype is None else f" in {self.dtype}")
        return text if self.device in (None, "cpu") else f"{text} on {self.device}"

    def as_json(self) -> dict[str, Any]:
        """The same for programs; sizes are width and height in px."""
        planned = self.planned
        return {
            "source": str(self.pair.source),
            "target": str(self.pair.target),
            "compare": None if self.pair.compare is None else str(self.pair.compare),
            "status": self.status,
            "source_size": None if planned is None else [planned.header.width, planned.header.height],
            "target_size": None if planned is None else [planned.width, planned.height],
            "frames": None if planned is None else planned.frames,
            "bits": None if planned is None else planned.bits,
            "seconds": round(self.seconds, 3),
            "dtype": self.dtype,
            "device": self.device,
            "notes": list(self.notes),
            "error": self.error,
        }


@dataclass(frozen=True)
class Totals:
    """All pictures together."""

    done: int
    failed: int
    skipped: int
    seconds: float
    peak_memory_mib: float | None
    """None where the system does not tell."""

    @classmethod
    def of(cls, records: Sequence[Record], seconds: float) -> "Totals":
        """Count the records."""
        done, failed, skipped = (
            sum(record.status == status for record in records) for status in (DONE, FAILED, SKIPPED)
        )
        return cls(done, failed, skipped, seconds, peak_memory_mib())

    def line(self) -> str:
        """The last line: what was done, how long it took, the most memory the process ever held."""
        text = f"{self.done} picture{'' if self.done == 1 else 's'}"
        text += f", {self.failed} failed" if self.failed else ""
        text += f", {self.skipped} skipped (their results exist)" if self.skipped else ""
        text += f", {self.seconds:.1f} s"
        return text if self.peak_memory_mib is None else f"{text}, peak memory {self.peak_memory_mib:.0f} MiB"


def json_report(
    records: Sequence[Record], totals: Totals, settings: dict[str, Any], left_out: Sequence[Path], interrupted: bool
) -> str:
    """The summary as JSON; names that are no Unicode come as escapes."""
    report = {
        "pictures": [record.as_json() for record in records],
        "totals": asdict(totals) | {"seconds": round(totals.seconds, 3)},
        "settings": settings,
        "left_out": [str(path) for path in left_out],
        "interrupted": interrupted,
    }
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def check_json_file(path: Path, pairs: Sequence[ImagePair], others: Sequence[Path]) -> None:
    """AlloSR2Error where the summary cannot go: into a folder, or over a picture, a result or another input."""
    if os.path.isdir(path):
        raise AlloSR2Error(f"{path}: expected a file for the summary, got a folder")
    files = {os.path.realpath(each) for pair in pairs for each in (pair.source, pair.target, pair.compare) if each}
    if os.path.realpath(path) in files | {os.path.realpath(other) for other in others}:
        raise AlloSR2Error(f"{path}: expected a file of its own for the summary, this one is read or written")


def write_json(path: Path, text: str) -> None:
    """Write the summary, whole or not at all; AlloSR2Error where it cannot be."""
    try:
        if path.exists() and not path.is_file():  # a pipe or /dev/null
            path.write_text(text)
        else:
            write_atomically(path, lambda partial: partial.write_text(text))
    except OSError as error:
        raise AlloSR2Error(f"{path}: the summary could not be written: {error}") from error


def peak_memory_mib() -> float | None:
    """Peak resident memory of this process in MiB; None where the system does not tell (Windows)."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; its `ru_maxrss` begins at what the process had that started this one
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="ascii", errors="replace").splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) / 2**10
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere
