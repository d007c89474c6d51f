"""One real ComfyUI server for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bad_checkpoints import write_bad_checkpoints
from comfy_server import ComfyServer
from PIL import Image

from allosr2_core.checkpoint.format import EMBEDDED_NAME, embedded_path

SMALL = "small.safetensors"


@pytest.fixture(scope="session")
def server(
    comfyui_root: Path, small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyServer]:
    """In fp32, with the pack, the small checkpoint and broken ones in models/allosr2, and pictures in its input."""
    base = tmp_path_factory.mktemp("comfyui")
    models, pictures = base / "models" / "allosr2", base / "input"
    models.mkdir(parents=True)
    pictures.mkdir()
    (models / SMALL).write_bytes(small_checkpoint.read_bytes())
    write_bad_checkpoints(models, small_checkpoint)
    write_pictures(pictures)
    with ComfyServer(comfyui_root, base, arguments=("--cpu", "--force-fp32")) as running:
        yield running


@pytest.fixture(scope="session")
def shipped() -> tuple[str, Path]:
    """Name and file of the checkpoint for whole-workflow tests: the embedded one."""
    return EMBEDDED_NAME, embedded_path()


def write_pictures(folder: Path) -> None:
    """photo.png 40x28, rgba.png 21x13, grey.png 18x18, dot.png 1x1, tiny.png 5x3, wide.png 150x90 (several tiles)."""
    Image.fromarray(_waves(28, 40)).save(folder / "photo.png")
    rgba = np.concatenate([_waves(13, 21), _waves(13, 21)[..., 1:2] // 2], axis=-1)
    Image.fromarray(rgba).save(folder / "rgba.png")
    Image.fromarray(_waves(18, 18)[..., 0]).save(folder / "grey.png")
    Image.fromarray(_waves(1, 1)).save(folder / "dot.png")
    Image.fromarray(_waves(3, 5)).save(folder / "tiny.png")
    Image.fromarray(_waves(90, 150)).save(folder / "wide.png")


def _waves(height: int, width: int) -> np.ndarray:
    """A smooth picture with some grain, (H, W, 3) uint8."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 5.0 + k) + np.cos(columns / (4.0 + k)) for k in range(3)]
    grain = np.random.default_rng(7).normal(0.0, 0.1, (height, width, 3))
    return np.clip((np.stack(waves, axis=-1) / 4.0 + 0.5 + grain) * 255.0, 0, 255).astype(np.uint8)


@pytest.fixture
def recorded_host(request: pytest.FixtureRequest) -> None:
    """For what is recorded of ComfyUI 0.3.75: others read JPEG by another decoder, and their own nodes differ."""
    if request.config.getoption("--comfyui"):
        pytest.skip("runs without --comfyui, on ComfyUI 0.3.75: it is recorded with that")
