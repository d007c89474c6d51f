"""Seconds, peak memory and what a machine can do, measured the same way in every benchmark. Linux.

Cases are timed in one process and in turns (A B A B ...), so that what disturbs one disturbs all; medians are compared.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
MEBI = 2**20


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table and one row of its JSON; fields that do not apply are None and left out."""

    bench: str
    name: str
    size: str
    """What was worked on, e.g. "128 px" or "1024 tokens"."""
    seconds: float | None = None
    """Median."""
    peak_mb: float | None = None
    """MiB that the process grew at the peak, above what it held before the call."""
    max_abs_diff: float | None = None
    """From the reference, in parts of full scale."""
    ratio: float | None = None
    """Of the seconds to those of `against`."""
    against: str | None = None
    figures: Mapping[str, float] | None = None
    """Whatever else a benchmark reports, by name."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the fields that apply, `figures` among them."""
        fields = {k: v for k, v in asdict(self).items() if v is not None and k != "figures"}
        return fields | dict(self.figures or {})


def in_turns(
    cases: Mapping[str, Callable[[], Any]], *, rounds: int, seconds: float = float("inf")
) -> dict[str, list[float]]:
    """Seconds of every call: each case once to warm up, then `rounds` times all of them in turn.

    No new round begins once `seconds` have passed, but one is always made.
    """
    started = time.perf_counter()
    found: dict[str, list[float]] = {name: [] for name in cases}
    with torch.inference_mode():
        for case in cases.values():
            case()
        for number in range(rounds):
            if number and time.perf_counter() - started > seconds:
                break
            for name, case in cases.items():
                before = time.perf_counter()
                case()
                found[name].append(time.perf_counter() - before)
    return found


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Median seconds of every case."""
    return {name: statistics.median(values) for name, values in found.items()}


def with_peak(function: Callable[[], Result]) -> tuple[Result, float, float]:
    """What a function returns, the MiB this process grew at its peak, and the seconds it took."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    started = time.perf_counter()
    with torch.inference_mode():
        result = function()
    return result, max(0.0, _status("VmHWM") - before) / MEBI, time.perf_counter() - started


def _status(field: str) -> int:
    """A field of /proc/self/status, bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}: expected Linux")


def max_difference(result: Tensor, reference: Tensor, full_scale: float) -> float:
    """Largest absolute difference, in parts of full scale."""
    return float((result.float() - reference.float()).abs().max()) / full_scale


def machine() -> dict[str, str | int]:
    """What the figures were measured on, for the JSON."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
