"""kill -9 of the trainer at random moments: a run that goes on afterwards is the run that was never disturbed.

The SR stage with its discriminator, by its command, with a data worker and a state after every step. Each moment lies
between the start of the process and its end; the killed run is started again and compared to the bit with the
undisturbed one: weights, averages, optimiser, discriminator, exported files.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file

from tests.support.equality import assert_equal
from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_photos
from train.__main__ import main

from .suites import Count, suite

STEPS = 12
FEW, MANY = 3, 50
"""Moments of the quick size and of the full one."""
SAID = "said.txt"
ORPHANED = 30.0
"""Seconds that a data worker may take to notice that its trainer is gone; it looks every five."""
PATIENCE = 300.0
"""Seconds after which a run counts as hanging."""


@suite("trainer")
def run(full: bool) -> Count:
    """Each moment is a case: failed where the run does not go on to its end, lost where it ends otherwise."""
    return killed(MANY if full else FEW, seed=1)


def killed(moments: int, seed: int) -> Count:
    """So many moments, drawn from the seed. A process that outlives the run that started it is lost, too."""
    counted, left = Count(), list[psutil.Process]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = _prepare(root)
        for _ in range(2):  # the first one also imports what the others find imported
            shutil.rmtree(root / "run" / "sr", ignore_errors=True)
            began = time.monotonic()
            if not _train(config, PATIENCE):
                raise AssertionError("the undisturbed run did not end")
        whole, seconds = _result(root), time.monotonic() - began
        rng = random.Random(seed)
        for number in range(moments):
            shutil.rmtree(root / "run" / "sr")
            moment = rng.uniform(0.0, seconds)
            _train(config, moment, left)
            at = f"trainer {number}: killed after {moment:.2f} of {seconds:.2f} s, at step {_step(root)} of {STEPS}"
            counted.tried += 1
            if not _train(config, PATIENCE):
                counted.failed += 1
                counted.said.append(f"{at}: failed: did not go on to its end: {_last_words(root)}")
            elif not _same(_result(root), whole):
                counted.lost += 1
                counted.said.append(f"{at}: lost: ended otherwise than the undisturbed run")
    _, alive = psutil.wait_procs(left, timeout=ORPHANED)
    counted.lost += len(alive)
    counted.said += [f"trainer: lost: {process} outlived the run that started it" for process in alive]
    for process in alive:
        process.kill()
    return counted


def _prepare(root: Path) -> Path:
    """A configuration whose first two stages are trained."""
    write_photos(root, "train", [(100, 140), (128, 96)])
    write_photos(root, "val", [(80, 70)])
    table = tiny_table(root, STEPS)
    table["run"] |= {"save_minutes": 0.0, "preview_every": 4}
    table["data"]["workers"] = 1
    path = root / "tiny.toml"
    path.write_text(to_toml(table), encoding="utf-8")
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        if run_autoencoder(path) or main(["prior", "--config", str(path)]):
            raise AssertionError("the first stages did not end")
    return path


def _train(config: Path, seconds: float, left: list[psutil.Process] | None = None) -> bool:
    """Run the stage in a process of its own, killed after so many seconds; whether it ended well before that.

    `left` gets the processes that a killed one had started.
    """
    context: Any = multiprocessing.get_context("forkserver")  # forked from a process that has imported and done nothing
    context.set_forkserver_preload(["train.loop.loop", "train.stages.sr", "tests.reliability.trainer"])
    process = context.Process(target=_child, args=(str(config),))
    process.start()
    process.join(seconds)
    if process.is_alive():
        if left is not None:
            left += psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return False
    return process.exitcode == 0


def _child(config: str) -> None:
    said = os.open(Path(config).with_name(SAID), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 2)
    torch.set_num_threads(1)
    raise SystemExit(main(["sr", "--config", config]))


def _last_words(root: Path) -> str:
    """The last line that a process said."""
    return (root / SAID).read_text(encoding="utf-8").strip().rpartition("\n")[2]


def _step(root: Path) -> int:
    """What the state on disk says, -1 without one."""
    path = root / "run" / "sr" / "state.pt"
    return int(torch.load(path, weights_only=True)["step"]) if path.exists() else -1


def _result(root: Path) -> dict[str, Any]:
    """All that a finished run leaves and that must not depend on what happened to it."""
    folder = root / "run" / "sr"
    files = {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    return {"state": torch.load(folder / "state.pt", weights_only=True), "files": files}


def _same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    try:
        assert_equal(one, two)
    except AssertionError:
        return False
    return True
