"""Fixtures of the core tests."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from allosr2_core.checkpoint.format import Checkpoint, load_checkpoint
from allosr2_core.pipeline import Pipeline
from tests.support.command_line import CommandLine, save_tiny_checkpoint
from tests.support.lora_network import Small
from tests.support.small_checkpoint import save_small_checkpoint

from .peers import Peers, randomize

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def peers(comfyui_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    folder = tmp_path_factory.mktemp("peers")
    worker = [sys.executable, str(Path(__file__).with_name("peer_worker.py")), str(comfyui_root), str(REPOSITORY)]
    with (
        (folder / "peers.log").open("w") as log,
        subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        answering = Peers(process, folder)
        answering.ready()
        yield answering
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A small one with random weights; its configuration is `small_config()`."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_small_checkpoint(path)
    return load_checkpoint(path)


@pytest.fixture(scope="session")
def upscaler(checkpoint: Checkpoint) -> Pipeline:
    return Pipeline.from_checkpoint(checkpoint)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file the command line runs on; smaller than `checkpoint`."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_tiny_checkpoint(path)
    return path


@pytest.fixture
def run(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(tiny_checkpoint, capsys)


@pytest.fixture
def small() -> Small:
    network = Small()
    randomize(network, seed=1)
    return network
