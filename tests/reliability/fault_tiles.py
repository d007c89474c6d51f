"""`Pipeline.upscale` that breaks off at a tile or at an operation of torch; and two of them in two threads."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from allosr2_core.tiling.exact import Tick

from .inputs import pipeline

SIZES = ((5, 7), (9, 14), (17, 31), (33, 20), (16, 40))
TILES = (0, 16, 32, 48, 64)
TICKS = range(5, 37)
"""Of an upscale: enough that every part has tiles, few enough to break off at each."""
OPERATIONS = 12
"""At which one upscale breaks off, of some thousand."""
PATIENCE = 30.0
"""Seconds that a thread waits for its turn."""


class HostInterrupt(Exception):
    """As hosts stop a run, and as their own code may catch it."""


class HostExit(BaseException):
    """The same, where no `except Exception` may catch it."""


INTERRUPTS = (KeyboardInterrupt, HostInterrupt, HostExit)


def beyond_memory() -> None:
    """An allocation that the system refuses: more than an address has bits for."""
    torch.empty(1 << 60, dtype=torch.uint8)


def device_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def no_more_objects() -> None:
    raise MemoryError


REFUSALS = (beyond_memory, device_full, no_more_objects)


@dataclass(frozen=True)
class Work:
    """One upscale, and what it gives undisturbed."""

    image: Tensor
    options: UpscaleOptions
    mask: Tensor | None
    ticks: int

    @classmethod
    def drawn(cls, rng: random.Random) -> Work:
        height, width = rng.choice(SIZES)
        batch, channels = rng.choice((1, 1, 2)), rng.choice((3, 3, 4, 1))
        generator = torch.Generator().manual_seed(rng.randrange(1 << 31))
        image = torch.rand(batch, height, width, channels, generator=generator)
        mask = torch.rand(1, height, width, generator=generator) if rng.random() < 0.2 else None
        fields: dict[str, Any] = {"scale": rng.choice((4.0, 4.0, 2.5, 5.7))}
        fields |= {"long_edge": 50} if rng.random() < 0.1 else {}
        fields |= {"t": rng.choice((None, None, 0.2, "calibrated")), "realism": rng.choice((1.0, 1.0, 0.5))}
        fields |= {"overlap": rng.choice((64, 16, 0)), "shifted": rng.random() < 0.3}
        fields |= {"color": rng.choice(("none", "none", "lab", "wavelet"))}
        fitting = list[tuple[UpscaleOptions, int]]()
        for tile in TILES:
            options = UpscaleOptions(**fields, tile=tile)
            ticks = batch * pipeline().ticks(height, width, options)
            if ticks in TICKS:
                fitting.append((options, ticks))
        options, ticks = rng.choice(fitting)
        return cls(image, options, mask, ticks)

    def upscale(self, tick: Tick | None = None, upscaler: Pipeline | None = None) -> Tensor:
        return (upscaler or pipeline()).upscale(self.image, self.options, mask=self.mask, tick=tick)


class Watched:
    """A pipeline that counts the calls of its networks; one of them can be made to fail."""

    def __init__(self, upscaler: Pipeline) -> None:
        self.calls, self.at, self.fail, self.error = 0, 0, device_full, None
        backend = upscaler.backend
        encode, velocity, decode = (self._watched(part) for part in (backend.encode, backend.velocity, backend.decode))
        self.pipeline = replace(upscaler, backend=replace(backend, encode=encode, velocity=velocity, decode=decode))

    def _watched(self, part: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*tensors: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == self.at:
                self.fail()
            return part(*tensors)

        return call


class FailingOperation(TorchDispatchMode):
    """Counts the operations of torch; the one of a number fails."""

    def __init__(self, at: int = 0, fail: Callable[[], None] = device_full) -> None:
        super().__init__()
        self.seen, self.at, self.fail = 0, at, fail

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operation
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        self.seen += 1
        if self.seen == self.at:
            self.fail()
        return func(*args, **(kwargs or {}))


@contextmanager
def nothing_kept() -> Iterator[None]:
    """AssertionError where a tensor made in the block outlives it."""
    gc.freeze()  # what was there before is not looked at
    try:
        yield
        gc.collect()
        kept = [tuple(each.shape) for each in gc.get_objects() if type(each) is Tensor]
        assert not kept, f"tensors are kept: {kept[:5]}"
    finally:
        gc.unfreeze()


def interrupted(rng: random.Random, folder: Path) -> Callable[[], None]:
    """A tick that raises, at each tick."""
    work, kind = Work.drawn(rng), rng.choice(INTERRUPTS)
    return lambda: at_every_tick(work, kind)


def at_every_tick(work: Work, kind: type[BaseException]) -> None:
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    image, whole = work.image.clone(), work.upscale(count)
    assert counted == work.ticks, f"{counted} ticks, {work.ticks} were announced"
    with nothing_kept():
        for number in range(1, work.ticks + 1):
            at_tick(work, kind, number)
            again(work, whole, image, f"{kind.__name__} at tick {number}")


def at_tick(work: Work, kind: type[BaseException], number: int) -> None:
    """The interrupt itself comes out, and nothing is computed after it."""
    watched, stop, ticks, calls = Watched(pipeline()), kind(f"at tick {number}"), 0, 0

    def tick() -> None:
        nonlocal ticks, calls
        ticks += 1
        if ticks == number:
            calls = watched.calls
            raise stop

    try:
        work.upscale(tick, watched.pipeline)
    except kind as error:
        assert error is stop, f"{error!r} instead of {stop!r}"
    else:
        raise AssertionError(f"{kind.__name__} at tick {number} of {work.ticks} was swallowed")
    assert (ticks, watched.calls) == (number, calls), (
        f"went on for {ticks - number} ticks, {watched.calls - calls} calls"
    )


def no_memory(rng: random.Random, folder: Path) -> Callable[[], None]:
    """Memory that runs out in each call of a network, or in operations anywhere."""
    work, fail, seed = Work.drawn(rng), rng.choice(REFUSALS), rng.random()
    if rng.random() < 0.5:
        return lambda: at_every_call(work, fail)
    return lambda: at_operations(work, fail, random.Random(seed))


def at_every_call(work: Work, fail: Callable[[], None]) -> None:
    image, whole, watched = work.image.clone(), work.upscale(), Watched(pipeline())
    assert torch.equal(work.upscale(upscaler=watched.pipeline), whole)
    calls, watched.fail = watched.calls, fail
    assert calls >= work.ticks
    with nothing_kept():
        for number in range(1, calls + 1):
            watched.calls, watched.at = 0, number
            refused(lambda: work.upscale(upscaler=watched.pipeline), error_of(fail))
            assert watched.calls == number, f"went on for {watched.calls - number} calls"
            again(work, whole, image, f"{fail.__name__} in call {number} of {calls}")


def at_operations(work: Work, fail: Callable[[], None], rng: random.Random) -> None:
    image, whole = work.image.clone(), work.upscale()
    with FailingOperation() as counted:
        found = work.upscale()
    assert torch.equal(found, whole)
    del found
    with nothing_kept():
        for number in sorted(rng.sample(range(1, counted.seen + 1), OPERATIONS)):
            expected = error_of(fail)  # outside: it may be an operation itself
            with FailingOperation(number, fail) as failing:
                refused(work.upscale, expected)
            assert failing.seen == number, f"went on for {failing.seen - number} operations"
            again(work, whole, image, f"{fail.__name__} in operation {number} of {counted.seen}")


def refused(attempt: Callable[[], object], expected: Exception | None) -> None:
    """The error comes out as it was raised."""
    found = error_of(attempt)
    assert type(found) is type(expected) and str(found) == str(expected), f"{found!r} instead of {expected!r}"


def error_of(attempt: Callable[[], object]) -> Exception | None:
    try:
        attempt()
    except Exception as error:
        return error.with_traceback(None)
    return None


def again(work: Work, whole: Tensor, image: Tensor, after: str) -> None:
    """The same again, by the same pipeline."""
    assert torch.equal(work.image, image), f"{after}: the input was changed"
    assert torch.equal(work.upscale(), whole), f"{after}: the next result is another one"


class Turns:
    """Lets one of two threads go on at a time: after each tile a seeded choice says which."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.left, self.next, self.changed = rng, [0, 1], 0, threading.Condition()

    def begin(self, who: int) -> None:
        with self.changed:
            self._wait(who)

    def tick(self, who: int) -> None:
        with self.changed:
            self.next = self.rng.choice(self.left)
            self.changed.notify_all()
            self._wait(who)

    def end(self, who: int) -> None:
        with self.changed:
            self.left.remove(who)
            self.next = 1 - who
            self.changed.notify_all()

    def _wait(self, who: int) -> None:
        if not self.changed.wait_for(lambda: self.next == who, PATIENCE):
            raise AssertionError("the other thread never gave the turn back")


def two_at_once(rng: random.Random, folder: Path) -> Callable[[], None]:
    """Two pictures by one pipeline in two threads: tile by tile in turns, or as the system lets them."""
    works, seed = (Work.drawn(rng), Work.drawn(rng)), rng.random()
    return lambda: together(works, Turns(random.Random(seed)) if seed < 0.7 else None)


def together(works: tuple[Work, Work], turns: Turns | None) -> None:
    alone = [work.upscale() for work in works]

    def one(who: int) -> Tensor:
        if turns is None:
            return works[who].upscale()
        try:
            turns.begin(who)
            return works[who].upscale(lambda: turns.tick(who))
        finally:
            turns.end(who)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(one, (0, 1), timeout=PATIENCE))
    for who in (0, 1):
        assert torch.equal(results[who], alone[who]), f"thread {who} made another picture than alone"
