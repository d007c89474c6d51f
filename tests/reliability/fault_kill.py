"""kill -9 of a folder's upscale: every result that is there is whole, and the same command does the rest."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoints import good
from .fault_process import PATIENCE, answer_of, command, differences, files, start, write_noise
from .suites import Lost

PICTURES = 6


@dataclass(frozen=True)
class Moment:
    """When the process is killed."""

    share: float
    """Of the time of an undisturbed run."""
    file: int
    """Instead: as soon as so many files were there, the hidden ones at work too; 0 for the time alone."""


def killed(rng: random.Random, folder: Path) -> Callable[[], None]:
    for number in range(PICTURES):
        write_noise(folder / "in" / f"{number}.png", rng, rng.randint(3, 40), rng.randint(3, 40))
    (folder / "tiny.safetensors").write_bytes(good())
    options = ("--format", rng.choice(("png", "jpg", "webp", "tiff")), *(("--compare",) if rng.random() < 0.5 else ()))
    moment = Moment(rng.random(), rng.choice((0, rng.randint(1, 2 * PICTURES))))
    return lambda: attempt(folder, options, moment)


def timed(answers: Any, arguments: tuple[str, ...]) -> None:  # noqa: ANN401 - a Connection
    """In a process of its own: says when it begins, and how it ended after how many seconds."""
    answers.send("begins")
    began = time.monotonic()
    said = command(arguments)
    answers.send((said, time.monotonic() - began))


def attempt(folder: Path, options: tuple[str, ...], moment: Moment) -> None:
    def arguments(target: str, *more: str) -> tuple[str, ...]:
        paths = ("upscale", str(folder / "in"), str(folder / target), "--dtype", "fp32")
        checkpoint = ("--checkpoint", str(folder / "tiny.safetensors"), "--json", str(folder / f"{target}.json"))
        return (*paths, *checkpoint, *options, *more)

    sources, seconds = files(folder / "in"), to_the_end(arguments("whole"))
    whole = files(folder / "whole")
    process, answers = start(timed, arguments("out"))
    answer_of(process, answers)
    wait(process, folder / "out", moment, seconds)
    process.kill()
    process.join()
    left = files(folder / "out")
    check(left, {name: data for name, data in whole.items() if name in left}, sources, folder)
    to_the_end(arguments("out", "--skip-existing"))
    check(files(folder / "out"), whole, sources, folder)
    assert not json.loads((folder / "out.json").read_text(encoding="utf-8"))["totals"]["failed"]


def to_the_end(arguments: tuple[str, ...]) -> float:
    """Run it; the seconds it took. AssertionError where it does not end well."""
    process, answers = start(timed, arguments)
    answer_of(process, answers)
    said, seconds = answer_of(process, answers)
    process.join()
    assert said[0] == 0 and not said[2].count("failed"), said
    return seconds


def wait(process: Any, target: Path, moment: Moment, seconds: float) -> None:  # noqa: ANN401
    """Until the moment, or the end of the process."""
    began, seen = time.monotonic(), set[str]()
    until = began + (PATIENCE if moment.file else moment.share * seconds)
    while process.is_alive() and time.monotonic() < until:
        if moment.file and target.is_dir():
            seen |= set(os.listdir(target))
            if len(seen) >= moment.file:
                return


def check(found: dict[str, bytes], expected: dict[str, bytes], sources: dict[str, bytes], folder: Path) -> None:
    """Results are whole. The file at work may be left, hidden and under a name that is no picture's."""
    if files(folder / "in") != sources:
        raise Lost("an input was changed")
    hidden = [name for name in found if name.startswith(".") and name.endswith(".part")]
    if wrong := differences({name: data for name, data in found.items() if name not in hidden}, expected):
        raise Lost(f"not whole: {wrong}")
    if len(hidden) > 1:
        raise Lost(f"more than the file at work is left: {hidden}")
    for summary in folder.glob("*.json"):
        json.loads(summary.read_text(encoding="utf-8"))
