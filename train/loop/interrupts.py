"""Ctrl-C and termination: the step at hand is finished and the state saved."""

from __future__ import annotations

import signal
from types import FrameType


class Interrupted:
    """Turns the first SIGINT or SIGTERM into a flag, so that the loop can save before it ends."""

    def __init__(self) -> None:
        self.requested = False

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True

    def __enter__(self) -> Interrupted:
        self._before = {s: signal.signal(s, self._request) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def leave_interrupts_to_the_loop(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the loop saves, so its data workers must outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
