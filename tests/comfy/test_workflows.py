"""The example workflows, run by comfy-cli as a user would, give the picture of the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from comfy_server import ComfyServer
from PIL import Image
from workflows import API_WORKFLOW, REPOSITORY, UI_WORKFLOW

TOLERANCE = 2  # of 255
COMFY = Path(sys.executable).with_name("comfy")


@pytest.fixture(scope="module")
def picture(server: ComfyServer) -> Path:
    """A photograph under the name the example workflows use."""
    target = server.input / "input.jpg"
    Image.open(server.input / "wide.png").save(target, quality=70)
    return target


@pytest.fixture(scope="module")
def as_read(server: ComfyServer, picture: Path) -> Path:
    """The photograph as the host reads it, without loss: hosts decode JPEG with Pillow or with FFmpeg."""
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture.name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "as-read"}},
    }
    (path,) = server.run(graph).images
    return path


@pytest.fixture(scope="module")
def expected(as_read: Path, shipped: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What `python -m allosr2_core upscale` makes of it."""
    target = tmp_path_factory.mktemp("cli") / "out.png"
    command = [sys.executable, "-m", "allosr2_core", "upscale", str(as_read), str(target), "--dtype", "fp32"]
    subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True, timeout=120)
    return np.asarray(Image.open(target)).astype(int)


@pytest.mark.parametrize("workflow", [API_WORKFLOW, UI_WORKFLOW], ids=["api", "ui"])
def test_comfy_run_gives_the_command_lines_picture(
    server: ComfyServer, expected: np.ndarray, workflow: Path, tmp_path: Path
) -> None:
    server.forget()  # else the second workflow, equal to the first, would save nothing
    before = set(server.output.iterdir())
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}  # comfy-cli keeps settings there
    done = subprocess.run(
        [
            *(str(COMFY), "--skip-prompt", "run", "--workflow", str(workflow), "--wait"),
            *("--host", "127.0.0.1", "--port", str(server.port)),
        ],
        env=os.environ | home | {"DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + server.log_tail()
    written = sorted(set(server.output.iterdir()) - before)
    assert len(written) == 1, done.stdout
    found = np.asarray(Image.open(written[0])).astype(int)
    assert found.shape == expected.shape == (360, 600, 3)
    assert np.abs(found - expected).max() <= TOLERANCE
