"""The suites by name. A suite is one file of this folder, named in FILES, that registers itself.

    @cases("inputs", quick=60, full=2000)
    def case(number: int, folder: Path) -> Callable[[], None]: ...

is for cases that one process can work on, one after the other: the function makes case `number`, the same each time, in
an empty folder, and returns what is then timed; that raises where the case does not end as it should. Other suites,
with servers or trainings of their own, register a function that does everything:

    @suite("server")
    def run(full: bool) -> Count: ...
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Case = Callable[[int, Path], Callable[[], None]]
FILES = ("inputs", "checkpoints", "peft_folders", "pictures", "faults", "trainer", "server")


@dataclass(frozen=True)
class Limits:
    """What a case may take."""

    seconds: float = 2.0
    """Of processor time: how busy the machine is makes no difference. A case that waits for ever is lost."""
    mib: float = 512.0
    """More than before it."""


@dataclass
class Count:
    """What came of a suite."""

    tried: int = 0
    failed: int = 0
    """Ended otherwise than it should: another exception, too long, too much memory, a wrong result."""
    lost: int = 0
    """The process died or hung, or files were gone, changed or left half written."""
    said: list[str] = field(default_factory=list)
    """A line for each that failed or was lost."""


@dataclass(frozen=True)
class Cases:
    """A suite of cases for the worker."""

    case: Case
    quick: int
    full: int
    limits: Limits


SUITES: dict[str, Cases | Callable[[bool], Count]] = {}


class Lost(AssertionError):
    """What a case raises where a file is gone, changed or half written."""


def cases(name: str, quick: int, full: int, limits: Limits = Limits()) -> Callable[[Case], Case]:  # noqa: B008
    """Register a suite of cases. ValueError where the name is taken."""

    def register(case: Case) -> Case:
        _add(name, Cases(case, quick, full, limits))
        return case

    return register


def suite(name: str) -> Callable[[Callable[[bool], Count]], Callable[[bool], Count]]:
    """Register a suite that does everything itself. ValueError where the name is taken."""

    def register(run: Callable[[bool], Count]) -> Callable[[bool], Count]:
        _add(name, run)
        return run

    return register


def _add(name: str, what: Cases | Callable[[bool], Count]) -> None:
    if name in SUITES:
        raise ValueError(f"expected a new name for a suite; {name!r} is taken")
    SUITES[name] = what


def load() -> dict[str, Cases | Callable[[bool], Count]]:
    """Every suite."""
    for name in FILES:
        importlib.import_module(f"{__package__}.{name}")
    return SUITES
