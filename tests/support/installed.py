"""Whether a pack in a ComfyUI folder works: the real server there runs the first example workflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from comfy_server import ComfyServer
from no_network import environment
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
API = REPOSITORY / "example_workflows" / "api"


def check(comfyui: Path, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    """The host imports the pack, restores a picture with it, and asks no other machine for anything."""
    variables, noted = environment(work)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    workflow = json.loads((API / "allosr2_quick.json").read_text())
    (loader,) = [node for node in workflow.values() if node["class_type"] == "LoadImage"]
    loader["inputs"]["image"] = "input.jpg"
    with ComfyServer(comfyui, comfyui, pack=None) as server:
        shutil.copy(REPOSITORY / "demo" / "input.jpg", server.input)
        result = server.run(workflow)
    with Image.open(REPOSITORY / "demo" / "input.jpg") as before, Image.open(result.images[0]) as after:
        assert after.size == (4 * before.width, 4 * before.height)
    assert noted.read_text() == ""
