"""Ctrl-C and termination: the step at hand is finished and the state saved; a preview is given up at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
WORKER_NICENESS = 10
"""How far data workers stand behind the step in the queue for a core."""


class Stopped(Exception):  # noqa: N818 - not a fault: the user asked for it
    """A run that a signal ended, after it saved. `status` is what its process should exit with, 128 + the signal's
    number: so a shell's `&&` and make do not go on with a stage that is half trained.
    """

    def __init__(self, said: str, number: int) -> None:
        super().__init__(said)
        self.status = 128 + number


class _GivenUp(BaseException):
    """Leaves a piece of work; no library catches it by the way."""


class Interrupted:
    """Turns the first SIGINT or SIGTERM into a number, so that the loop can save before it ends."""

    def __init__(self) -> None:
        self.number = 0
        """Of the signal, 0: none came."""
        self._may_give_up = False

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.number = self.number or signum
        if self._may_give_up:
            self._may_give_up = False
            raise _GivenUp

    def unless(self, work: Callable[[], T]) -> T | None:
        """What `work` returns, or None as soon as a signal comes. For work that changes nothing."""
        if self.number:
            return None
        try:
            self._may_give_up = True
            try:
                return work()
            finally:
                self._may_give_up = False
        except _GivenUp:
            return None

    def __enter__(self) -> Interrupted:
        self._before = {s: signal.signal(s, self._request) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def begin_worker(worker: int) -> None:
    """What a data worker does first: it stands back behind the step, on its one thread (which torch sees to).

    Ctrl-C and `timeout` signal every process of a group, Slurm's `scancel` and `pkill` every process there is; the loop
    saves, so its workers must outlive it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name == "posix":
        signal.signal(signal.SIGTERM, _outlive)
        os.setsid()
        os.nice(WORKER_NICENESS)


def _outlive(signum: int, frame: FrameType | None) -> None:
    """Outlives one signal. The next ends the worker: torch and multiprocessing both send one to a worker that hangs."""
    signal.signal(signum, signal.SIG_DFL)
