"""Signals: a run saves, says so and ends with the status of the signal, so that `&&` and make do not go on."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.support.tiny_training import tiny_table, to_toml, write_photos
from tests.support.toy_stage import Toy, in_folder, state_of
from train.config import Config
from train.loop.interrupts import Stopped
from train.loop.loop import run_stage
from train.loop.preview import Preview

REPOSITORY = Path(__file__).resolve().parents[2]


class Shown(Toy):
    """Its preview takes a minute; `signal` comes while it is made."""

    def __init__(self, config: Config, signal_number: int) -> None:
        super().__init__(config)
        self.number = signal_number
        self.weight_shown = torch.empty(0)

    def preview(self) -> Preview:
        self.weight_shown = self.trained["map"].weight.detach().clone()
        os.kill(os.getpid(), self.number)
        time.sleep(60)
        return super().preview()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_preview_before_the_first_step_is_given_up(tmp_path: Path, number: int, status: int) -> None:
    config, began = in_folder(tmp_path), time.monotonic()
    stage = Shown(config, number)
    own = stage.trained["map"].weight.detach().clone()
    with pytest.raises(Stopped, match="toy: stopped at step 0, saved") as stopped:
        run_stage(stage, config)
    assert time.monotonic() - began < 20
    assert stopped.value.status == status
    assert state_of(config)["step"] == 0
    assert torch.equal(stage.trained["map"].weight, own)  # not the averages, which a preview shows
    assert run_stage(Toy(config), config) == 10


def test_a_preview_on_the_way_is_given_up_too_and_costs_no_step(tmp_path: Path) -> None:
    config = in_folder(tmp_path)
    assert run_stage(Toy(config), config, max_steps=5) == 5
    with pytest.raises(Stopped, match="stopped at step 10"):
        run_stage(Shown(config, signal.SIGTERM), config)
    assert state_of(config)["step"] == 10


@pytest.fixture
def long_run(tmp_path: Path) -> Path:
    """A configuration whose first stage takes hours."""
    write_photos(tmp_path, "train", [(100, 140)])
    write_photos(tmp_path, "val", [(80, 70)])
    table = tiny_table(tmp_path, steps=1_000_000)
    table["run"]["preview_every"] = 0
    table["data"]["workers"] = 1
    path = tmp_path / "long.toml"
    path.write_text(to_toml(table), encoding="utf-8")
    return path


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="runs on Linux: a process's children are read from /proc")
@pytest.mark.parametrize("sent_to", ["group", "every process"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_ends_with_the_status_of_the_signal(long_run: Path, number: int, status: int, sent_to: str) -> None:
    """As Ctrl-C and `timeout` signal, or as Slurm's scancel does: the data worker lives until the state is saved."""
    command = [sys.executable, "-m", "tests.support.stage_command", "autoencoder", "--config", str(long_run)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stderr is not None
        said = []
        for line in running.stderr:
            said.append(line)
            if re.search(r"autoencoder 2/\d+", line):
                break
        if sent_to == "group":
            os.killpg(running.pid, number)
        else:
            workers = children(running.pid)
            assert workers
            for pid in (*workers, running.pid):  # the worker first: the trainer may still be waiting for its crops
                os.kill(pid, number)
        said += running.stderr.read().splitlines()
        assert running.wait(timeout=60) == status, "\n".join(said)
    (last,) = [line for line in said if "stopped at step" in line]
    reached = int(re.search(r"autoencoder: stopped at step (\d+), saved", last)[1])  # type: ignore[index]
    assert not [line for line in said if "Traceback" in line]
    state = torch.load(long_run.parent / "run" / "autoencoder" / "state.pt", weights_only=True)
    assert state["step"] == reached >= 2
