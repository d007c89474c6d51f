"""One folder worked on by several processes, as `accelerate launch` and `torchrun` start them.

They are told their number by the launcher's environment variables. The first reads the headers and deals the pictures
out; each works on its own share; at the end the first gets the records of all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import torch.distributed as dist

from ..errors import AlloSR2Error

T = TypeVar("T")
LONGEST_WAIT = timedelta(days=14)
"""How long a process waits for the others' shares; one that died is noticed at once."""


class Processes(AbstractContextManager["Processes"]):
    """The processes of a run, seen from one of them; a run of one needs no launcher and talks to nobody.

    AlloSR2Error for environment variables that make no sense, or where the others cannot be reached.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.count, self.number = _whole(environment, "WORLD_SIZE", 1), _whole(environment, "RANK", 0)
        if not 0 <= self.number < self.count:
            raise AlloSR2Error(f"expected RANK below WORLD_SIZE; got {self.number} of {self.count}")

    @property
    def first(self) -> bool:
        """Whether this is the one that deals and sums up."""
        return self.number == 0

    def __enter__(self) -> Self:
        if self.count > 1:
            try:
                dist.init_process_group("gloo", timeout=LONGEST_WAIT)
            except (RuntimeError, ValueError) as error:
                raise AlloSR2Error(f"expected {self.count} processes of one launcher; {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.count > 1:
            dist.destroy_process_group()

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all of them; its AlloSR2Error too."""
        if self.count == 1:
            return make()
        made, failed = None, None
        if self.first:
            try:
                made = make()
            except AlloSR2Error as error:
                failed = error
        parts: list[Any] = [made, failed]
        dist.broadcast_object_list(parts)
        made, failed = parts
        if failed is not None:
            raise failed
        return made

    def gathered(self, mine: T) -> list[T]:
        """What each process has, in their order; AlloSR2Error when one is gone."""
        if self.count == 1:
            return [mine]
        found: list[Any] = [None] * self.count
        try:
            dist.all_gather_object(found, mine)
        except RuntimeError as error:
            raise AlloSR2Error(f"one of {self.count} processes is gone: the same command does the rest") from error
        return found

    def share(self, work: Sequence[float]) -> list[int]:
        """Which of the pieces of work are this process's: the largest first, each to who has the least so far."""
        loads, mine = [0.0] * self.count, list[int]()
        for index in sorted(range(len(work)), key=lambda i: (-work[i], i)):
            lightest = min(range(self.count), key=loads.__getitem__)
            loads[lightest] += work[index]
            if lightest == self.number:
                mine.append(index)
        return mine


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise AlloSR2Error(f"expected a whole number in the environment variable {name}; got {text!r}")
    return int(text)
