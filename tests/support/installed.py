"""Whether a pack in a ComfyUI folder works: the real server there runs its example workflows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from comfy_server import ComfyServer
from no_network import environment
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
API = REPOSITORY / "example_workflows" / "api"
SIZES = ((48, 32), (40, 40), (30, 52))
"""Of the pictures in the folder, px; each another one, so that a result tells whose it is."""


def check(comfyui: Path, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    """The host imports the pack, restores a picture with it, and asks no other machine for anything."""
    workflow = json.loads((API / "allosr2_quick.json").read_text())
    (loader,) = [node for node in workflow.values() if node["class_type"] == "LoadImage"]
    loader["inputs"]["image"] = "input.jpg"
    with _running(comfyui, monkeypatch, work) as server:
        shutil.copy(REPOSITORY / "demo" / "input.jpg", server.input)
        result = server.run(workflow)
    with Image.open(REPOSITORY / "demo" / "input.jpg") as before, Image.open(result.images[0]) as after:
        assert after.size == (4 * before.width, 4 * before.height)


def check_folder(comfyui: Path, pack: Path, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    """The same with the installed pack's own template for a folder: every picture of it has its result."""
    workflow = json.loads((pack / "example_workflows" / "api" / "allosr2_folder.json").read_text())
    with _running(comfyui, monkeypatch, work) as server:
        before = _write_photos(server.input / "photos")
        images = server.run(workflow).images
        assert set(images) == set(server.output.iterdir())
    after = {picture.size: picture for picture in map(Image.open, images)}
    assert len(images) == len(SIZES) and after.keys() == {(4 * width, 4 * height) for width, height in SIZES}
    for small in before:
        large = after[4 * small.width, 4 * small.height].convert("RGB")
        reduced = np.asarray(large.resize(small.size, Image.Resampling.BOX)).astype(float)
        assert np.abs(reduced - np.asarray(small)).mean() < 16.0, "it is not that picture, enlarged"


@contextmanager
def _running(comfyui: Path, monkeypatch: pytest.MonkeyPatch, work: Path) -> Iterator[ComfyServer]:
    """The server of a ComfyUI folder with what is installed there, which must ask no other machine for anything."""
    variables, noted = environment(work)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with ComfyServer(comfyui, comfyui, pack=None) as server:
        yield server
    assert noted.read_text() == ""


def _write_photos(folder: Path) -> list[Image.Image]:
    """Parts of the photographs of tests/photos, in the sizes of `SIZES`."""
    folder.mkdir()
    pictures = []
    for path, (width, height) in zip(sorted((REPOSITORY / "tests" / "photos").glob("*.jpg")), SIZES, strict=True):
        with Image.open(path) as photo:
            left, top = (photo.width - 4 * width) // 2, (photo.height - 4 * height) // 2
            part = photo.convert("RGB").crop((left, top, left + 4 * width, top + 4 * height))
        pictures.append(part.resize((width, height), Image.Resampling.BOX))
        pictures[-1].save(folder / f"{path.stem}.png")
    return pictures
