"""The process that works on cases: a line "SUITE NUMBER" in, a line of JSON out, as long as it lives."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from .suites import Cases, Limits, Lost, load

PAGE = os.sysconf("SC_PAGE_SIZE")
SPARE = 6 << 30
"""Bytes of address space above what is taken at the start: no case takes the machine down."""


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE / 2**20


def peak_mib() -> float:
    """Since the last `forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def work(case: Any, number: int, limits: Limits) -> dict[str, str]:  # noqa: ANN401
    """{"ok" | "failed" | "lost": why} of one case."""
    folder = Path(tempfile.mkdtemp(prefix="case-"))
    try:
        attempt = case(number, folder)
        forget_peak()
        before, started = resident_mib(), time.process_time()
        try:
            attempt()
        except Lost as error:
            return {"lost": str(error)}
        except BaseException as error:  # whatever it is, it is the answer
            last = traceback.extract_tb(error.__traceback__)[-1]
            return {"failed": f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"[:600]}
        seconds, grown = time.process_time() - started, peak_mib() - before
        if seconds > limits.seconds:
            return {"failed": f"took {seconds:.1f} s"}
        if grown > limits.mib:
            return {"failed": f"took {grown:.0f} MiB"}
        return {"ok": f"{seconds:.3f} s, {grown:.0f} MiB"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a case prints is no answer
    suites = load()
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (taken + SPARE, taken + SPARE))
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        name, number = line.split()
        suite = suites[name]
        assert isinstance(suite, Cases)
        answers.write(json.dumps(work(suite.case, int(number), suite.limits)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
