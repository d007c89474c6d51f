"""Cases given to the worker one by one, from outside: a case that kills or hangs it is lost, and a new one goes on."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from .suites import Count

REPOSITORY = Path(__file__).resolve().parents[2]
HUNG = 60.0
"""Seconds without an answer after which a case is lost."""
STARTING = 120.0


class Worker:
    """The process; a context manager."""

    def __init__(self) -> None:
        self.process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def ask(self, name: str, number: int) -> dict[str, str]:
        """What came of a case: {"ok" | "failed" | "lost": why}."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{name} {number}\n")
            self.process.stdin.flush()
            line = self._line(self.process, HUNG)
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        self._stop()
        code = self.process.returncode
        self.process = self._start()
        return {"lost": f"no answer; the process ended with {code}"}

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.worker"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._line(process, STARTING) != "ready\n":
            process.kill()
            raise RuntimeError("the worker of tests.reliability does not start: python -m tests.reliability.worker")
        return process

    def _stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    @staticmethod
    def _line(process: subprocess.Popen[str], seconds: float) -> str:
        """What it says next; "" where it died or says nothing for so long."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if waiting.select(seconds) else ""


def count(worker: Worker, name: str, numbers: Iterable[int], tell: Callable[[str], object]) -> Count:
    """The cases of a suite; `tell` is called with a line for each that did not end as it should."""
    counted = Count()
    for number in numbers:
        answer = worker.ask(name, number)
        counted.tried += 1
        counted.failed += "failed" in answer
        counted.lost += "lost" in answer
        if "ok" not in answer:
            kind, why = next(iter(answer.items()))
            counted.said.append(f"{name} {number}: {kind}: {why}")
            tell(counted.said[-1])
    return counted
