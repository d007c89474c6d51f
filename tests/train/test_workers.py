"""Data workers prepare crops beside the step: on one thread, behind it in the queue for a core, deaf to signals."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tests.support.equality import assert_equal
from tests.support.tiny_training import tiny_table
from tests.support.toy_stage import Numbers, Toy, state_of
from train.config import Config
from train.config_file import from_table
from train.loop.interrupts import WORKER_NICENESS, begin_worker
from train.loop.loop import run_stage


class Told(Numbers):
    """Every item says what process it was made in."""

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        deaf = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        about = [os.getpid(), os.getpgid(0), os.nice(0), torch.get_num_threads(), int(deaf)]
        return super().__getitem__(item) | {"about": torch.tensor(about)}


class Asking(Toy):
    """Keeps what its items say."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.told: list[list[int]] = []

    def dataset(self, start: int) -> Dataset:
        return Told(start, self.optim.steps * self.optim.batch)

    def forward(self, batch: dict[str, Tensor], *rest: object) -> dict[str, Tensor]:
        self.told += batch["about"].tolist()
        return super().forward(batch, *rest)  # type: ignore[arg-type]


def run_with(root: Path, workers: int) -> tuple[Asking, Config]:
    table = tiny_table(root, steps=4)
    table["data"]["workers"] = workers
    config = from_table(Config, table, "x")
    stage = Asking(config)
    run_stage(stage, config)
    return stage, config


@pytest.mark.skipif(os.name != "posix", reason="runs on POSIX: niceness and process groups")
def test_a_worker_stands_back_behind_the_step(tmp_path: Path) -> None:
    stage, _ = run_with(tmp_path, workers=2)
    assert len({pid for pid, *_ in stage.told}) == 2
    for pid, group, niceness, threads, deaf in stage.told:
        assert pid != os.getpid() and group == pid  # a group of its own
        assert niceness == min(19, os.nice(0) + WORKER_NICENESS)
        assert threads == 1 and deaf


def waiting(ready: Connection) -> None:
    begin_worker(0)
    ready.send(True)
    while True:
        time.sleep(0.1)


@pytest.mark.skipif(os.name != "posix", reason="runs on POSIX: signals")
def test_a_worker_outlives_one_termination_and_not_two() -> None:
    ready, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=waiting, args=(theirs,), daemon=True)
    worker.start()
    assert ready.recv()
    worker.terminate()
    worker.join(timeout=0.5)
    assert worker.is_alive()
    worker.terminate()
    worker.join(timeout=20)
    assert worker.exitcode == -signal.SIGTERM


def test_without_workers_the_process_itself_prepares_them(tmp_path: Path) -> None:
    stage, _ = run_with(tmp_path, workers=0)
    assert {pid for pid, *_ in stage.told} == {os.getpid()}


def test_workers_change_nothing_in_the_result(tmp_path: Path) -> None:
    states = [state_of(run_with(tmp_path / str(workers), workers)[1]) for workers in (0, 1, 2)]
    for state in states:
        del state["settings"]
    assert_equal(states[0], states[1])
    assert_equal(states[0], states[2])
