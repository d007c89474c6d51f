"""The command line in a process of its own, which may lose rights or be killed; and what a folder holds."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from allosr2_core.cli.main import main

PATIENCE = 40.0
"""Seconds after which a process counts as hanging."""
NOBODY = 65534
"""User and group without rights."""
PRELOADED = ["tests.reliability.faults", "torch._dynamo"]
"""The second is what torch imports, for a second, at its first `normal_` on a meta tensor: of every checkpoint."""
Said = tuple[int, str, str]
"""Exit code, standard output, standard error."""


def command(arguments: tuple[str, ...]) -> Said:
    """Run it here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def start(work: Callable[..., None], *given: object) -> tuple[Any, Any]:
    """A process that does `work(answer, *given)`, and the end of the pipe that its answers come out of.

    It is forked from one that has imported everything and done nothing: threads of torch do not survive a fork.
    """
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_single, args=(work, theirs, *given))
    process.start()
    theirs.close()
    return process, ours


def answer_of(process: Any, answers: Any) -> Any:  # noqa: ANN401
    """What it says next. AssertionError where it dies or hangs."""
    try:
        if answers.poll(PATIENCE):
            return answers.recv()
    except EOFError:
        pass
    process.kill()
    process.join()
    raise AssertionError(f"the command gave no answer; its process ended with {process.exitcode}")


def _single(work: Callable[..., None], *given: object) -> None:
    torch.set_num_threads(1)
    work(*given)


def be_nobody(root: Path) -> None:
    """For the rest of this process: the administrator may write anywhere. The folder becomes nobody's."""
    if os.geteuid() != 0:
        return
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Names of files that are not there, not expected, or otherwise."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def write_noise(path: Path, rng: random.Random, height: int, width: int, frames: int = 1) -> None:
    """A picture that no format makes small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(rng.randrange(1 << 31)).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    first, *others = (Image.fromarray(each) for each in values)
    first.save(path, **({"save_all": True, "append_images": others} if others else {}))
