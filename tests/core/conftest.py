"""Fixtures of the core tests."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .peers import Peers

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    fetch = [sys.executable, str(REPOSITORY / "tools" / "comfyui.py")]
    root = subprocess.run(fetch, check=True, capture_output=True, text=True).stdout.strip()
    folder = tmp_path_factory.mktemp("peers")
    worker = [sys.executable, str(Path(__file__).with_name("peer_worker.py")), root, str(REPOSITORY)]
    with (
        (folder / "peers.log").open("w") as log,
        subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        answering = Peers(process, folder)
        answering.ready()
        yield answering
        assert process.stdin is not None
        process.stdin.close()
