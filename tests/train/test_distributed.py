"""Two processes that share a batch train the same network as one: `accelerate launch`, gloo, real commands."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_config, write_photos
from train.__main__ import main

STEPS = 4
TOLERANCE = 1e-5
REPOSITORY = Path(__file__).parents[2]


def launch(stage: str, config: Path, processes: int = 2) -> None:
    """accelerate starts CPU processes through MPI; without it each is launched with its rank, as on many machines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "-m",
        "train",
        stage,
        "--config",
        str(config),
    ]
    running = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ
            | {key: str(value) for key, value in shared.items()}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0] * processes, "\n".join(outputs)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("distributed")
    write_photos(root, "train", [(100, 140), (128, 96)])
    write_photos(root, "val", [(80, 70)])
    one, two = (write_config(root, name, STEPS, batch=4) for name in ("one", "two"))
    assert run_autoencoder(one) == 0
    (root / "two").mkdir()
    (root / "two" / "autoencoder").symlink_to(root / "one" / "autoencoder")
    for stage in ("prior", "allosr2"):
        assert main([stage, "--config", str(one)]) == 0
        launch(stage, two)
    return root


@pytest.mark.parametrize("stage", ["prior", "allosr2"])
def test_two_processes_give_the_result_of_one(root: Path, stage: str) -> None:
    one, two = (torch.load(root / name / stage / "state.pt", weights_only=True) for name in ("one", "two"))
    assert one["step"] == two["step"] == STEPS
    for part in ("trained", "averaged"):
        assert one[part].keys() == two[part].keys()
        for name, value in one[part].items():
            assert float((two[part][name] - value).abs().max()) <= TOLERANCE, (part, name)


def test_the_processes_write_one_log(root: Path) -> None:
    lines = (root / "two" / "allosr2" / "log.jsonl").read_text().splitlines()
    assert len(lines) == STEPS + 2  # one a step, previews before the first and after the last


def test_a_batch_that_cannot_be_shared_evenly_is_refused(root: Path, tmp_path: Path) -> None:
    table = tiny_table(root, steps=STEPS)
    table["run"]["dir"] = str(tmp_path / "odd")
    table["prior"]["optim"]["batch"] = 3
    config = tmp_path / "odd.toml"
    config.write_text(to_toml(table), encoding="utf-8")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "autoencoder").symlink_to(root / "one" / "autoencoder")
    with pytest.raises(AssertionError, match="expected a batch that 2 processes share evenly; got 3"):
        launch("prior", config)
