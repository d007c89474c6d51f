"""This pack as a git repository on a loopback server, and ComfyUI folders to install it into."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from comfy_server import free_port
from install_tools import REPOSITORY, comfyui_copy, published


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository to install from."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("runs in a git checkout: the files to install are those of its last commit")
    return published(tmp_path_factory.mktemp("served") / "allosr2.git")


@pytest.fixture(scope="module")
def address(bare: Path) -> Iterator[str]:
    """Where a web server without any git of its own serves it."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(bare.parent)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}/{bare.name}"
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def new_comfyui(comfyui_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Gives a fresh ComfyUI folder at each call."""
    return lambda: comfyui_copy(comfyui_root, tmp_path_factory.mktemp("fresh") / "ComfyUI")
