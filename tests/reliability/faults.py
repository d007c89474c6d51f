"""What breaks off in the middle: interrupts, memory that runs out, disks that are full, kills; and two at once.

A case is one upscale, or one folder by the command line, and breaks off at each of its tiles or at moments drawn from
its number. What went wrong is heard as it was, nothing stays half done, and the next attempt is right to the bit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch

from .fault_disk import full_disk
from .fault_kill import killed
from .fault_tiles import interrupted, no_memory, two_at_once
from .suites import Limits, cases

Kind = Callable[[random.Random, Path], Callable[[], None]]
FIVE: tuple[Kind, ...] = (interrupted, full_disk, no_memory, interrupted, two_at_once)
KINDS: tuple[Kind, ...] = FIVE * 3 + (interrupted, full_disk, no_memory, interrupted, killed)
"""In turns; a kill takes three processes, so it is one case in twenty."""


@cases("faults", quick=20, full=400, limits=Limits(seconds=10.0))
def case(number: int, folder: Path) -> Callable[[], None]:
    attempt = KINDS[number % len(KINDS)](random.Random(f"faults/{number}"), folder)
    return lambda: in_one_thread(attempt)


def in_one_thread(attempt: Callable[[], None]) -> None:
    """Tiles this small gain nothing by torch's own threads, which spin where the machine is busy: ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        attempt()
    finally:
        torch.set_num_threads(threads)
