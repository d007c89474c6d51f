"""The example workflows run, and give the picture of the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from comfy_server import ComfyServer
from PIL import Image
from template_list import BLUEPRINT, PICTURE, TEMPLATES
from template_pictures import place_inputs
from templates import FOLDER, SUBGRAPHS, texts
from workflows import API_WORKFLOW, QUICK_WORKFLOW, REPOSITORY, UI_WORKFLOW

from allosr2_core.image.geometry import resize_bicubic

TOLERANCE = 2  # of 255
COMFY = Path(sys.executable).with_name("comfy")
SIZE = (96, 64)
"""Of the picture that templates are run on."""
RESULTS: dict[str, tuple[int, tuple[int, int], str]] = {
    "allosr2_quick": (1, (384, 256), "RGB"),
    "allosr2_upscale": (1, (384, 256), "RGB"),
    "allosr2_stock_sampler": (1, (384, 256), "RGB"),
    "allosr2_mask": (1, (384, 256), "RGB"),
    "allosr2_transparent": (1, (384, 256), "RGBA"),
    "allosr2_4k": (1, (200, 133), "RGB"),
    "allosr2_folder": (4, (192, 128), "RGB"),
}
"""How many pictures a template saves, their size and their channels."""
LATER = {"allosr2_video", "allosr2_flux"}
"""Templates with a test of their own; the one with FLUX.1 runs in test_golden.py."""


@pytest.fixture(scope="module")
def source(server: ComfyServer) -> Image.Image:
    return Image.open(server.input / "wide.png").resize(SIZE)


def run(server: ComfyServer, name: str, source: Image.Image) -> tuple[Image.Image, tuple[Path, ...]]:
    """The API form of a template on a small picture: what went in, and the files that came out."""
    workflow: dict[str, Any] = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
    for node in workflow.values():
        if node["inputs"].get("long_edge") == 3840 and node["inputs"].get("size_by") == "long edge":
            node["inputs"]["long_edge"] = 200
    return place_inputs(workflow, source, server.input), server.run(workflow).images


@pytest.mark.usefixtures("recorded_host")
def test_all_forms_are_those_of_the_list(server: ComfyServer) -> None:
    """`python tools/templates.py` writes them."""
    wanted = texts(server.object_info)
    assert {*FOLDER.rglob("*.json"), *SUBGRAPHS.glob("*.json")} == set(wanted)
    for path, text in wanted.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is another one: python tools/templates.py"
    assert {path.stem for path in FOLDER.glob("*.jpg")} == {template.name for template in TEMPLATES}


def test_the_nodes_are_offered_as_one_that_can_be_opened(server: ComfyServer) -> None:
    """The host lists it; inside are the four nodes, every link at both of its ends."""
    (number,) = [key for key, entry in server.get("/global_subgraphs").items() if entry["name"] == BLUEPRINT.title]
    (inside,) = json.loads(server.get(f"/global_subgraphs/{number}")["data"])["definitions"]["subgraphs"]
    nodes = {node["id"]: node for node in inside["nodes"]}
    four = {"AlloSR2Loader", "SNRTimestepEstimate", "AlloSR2OneStepUpscale", "TiledDecode"}
    assert {node["type"] for node in nodes.values()} == four
    for link in inside["links"]:
        if link["target_id"] in nodes:
            assert nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
        if link["origin_id"] in nodes:
            assert link["id"] in nodes[link["origin_id"]]["outputs"][link["origin_slot"]]["links"]
        else:
            assert link["id"] in inside["inputs"][link["origin_slot"]]["linkIds"]


def test_nothing_is_missing_when_a_template_is_opened(comfyui_root: Path) -> None:
    assert (comfyui_root / "input" / PICTURE).is_file()
    for template in TEMPLATES:
        assert all(node.inputs["image"] == PICTURE for node in template.nodes.values() if node.kind == "LoadImage")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_everything_is_on_a_small_screen(template: Any) -> None:
    """Of 1600 x 900 px, without the bars at the left and at the top."""
    places = [(node.pos, node.size) for node in template.nodes.values()] + [(template.note_pos, template.note_size)]
    for axis, (first, last) in enumerate(((70, 1600), (170, 900))):
        for pos, size in places:
            ends = [(at + template.offset[axis]) * template.zoom for at in (pos[axis], pos[axis] + size[axis])]
            assert first <= ends[0] and ends[1] <= last


def test_every_template_is_run() -> None:
    assert RESULTS.keys() | LATER == {template.name for template in TEMPLATES}


@pytest.mark.parametrize("name", RESULTS)
def test_a_template_gives_its_pictures(server: ComfyServer, source: Image.Image, name: str) -> None:
    before, images = run(server, name, source)
    count, size, mode = RESULTS[name]
    assert len(images) == count
    pictures = [Image.open(path) for path in images]
    assert all((picture.size, picture.mode) == (size, mode) for picture in pictures)
    if name == "allosr2_mask":
        values = torch.from_numpy(np.array(before)).float()[None] / 255.0
        plain = (resize_bicubic(values, *reversed(size))[0] * 255.0).round().numpy().astype(int)
        left = np.abs(np.asarray(pictures[0]).astype(int) - plain)[:, : size[0] // 2 - 4]
        assert left.max() <= 2


def test_a_video_keeps_its_frames(server: ComfyServer, source: Image.Image) -> None:
    before, (path,) = run(server, "allosr2_video", source)
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    assert len(frames) == 6 and {frame.size for frame in frames} == {(2 * before.width, 2 * before.height)}


@pytest.fixture(scope="module")
def picture(server: ComfyServer) -> Path:
    """A photograph under the name the example workflows use."""
    target = server.input / PICTURE
    Image.open(server.input / "wide.png").save(target)
    return target


@pytest.fixture(scope="module")
def expected(picture: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What `python -m allosr2_core upscale` makes of it."""
    target = tmp_path_factory.mktemp("cli") / "out.png"
    command = [sys.executable, "-m", "allosr2_core", "upscale", str(picture), str(target), "--dtype", "fp32"]
    subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True, timeout=120)
    return np.asarray(Image.open(target)).astype(int)


@pytest.mark.parametrize("workflow", [API_WORKFLOW, UI_WORKFLOW, QUICK_WORKFLOW], ids=["api", "ui", "quick"])
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
