"""AlloSR2 Upscale: the picture of the four nodes, and nothing done twice."""

import io
from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer, WorkflowError, WorkflowResult
from events import watch
from PIL import Image
from workflows import DECODE, Workflow, example, with_node, without_t

from allosr2_core.checkpoint.format import EMBEDDED_NAME

SMALL = "small.safetensors"
TOLERANCE = 1  # of 255
NODE = "2"


def quick(image: str, **inputs: Any) -> Workflow:
    """Load Image, AlloSR2 Upscale, Save Image."""
    given = {"size_by": "scale", "scale": 4.0, "long_edge": 3840, "realism": 1.0, "color": "none", "checkpoint": SMALL}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        NODE: {"class_type": "AlloSR2Upscale", "inputs": {"image": ["1", 0], **given, **inputs}},
        "3": {"class_type": "SaveImage", "inputs": {"images": [NODE, 0], "filename_prefix": "quick"}},
    }


def pixels(result: WorkflowResult) -> np.ndarray:
    (path,) = result.images
    return np.asarray(Image.open(path)).astype(int)


def worked(server: ComfyServer, workflow: Workflow) -> set[str]:
    """Which of the nodes inside the node had work to do."""
    return {node.rpartition(".")[2] for node in watch(server, workflow).ran if node.startswith(f"{NODE}.")}


@pytest.mark.parametrize(
    ("inputs", "step", "decode"),
    [
        ({}, {}, {}),
        ({"scale": 2.5, "realism": 0.4}, {"scale": 2.5}, {"realism": 0.4}),
        ({"size_by": "long edge", "long_edge": 77}, {"size_by": "long edge", "long_edge": 77}, {}),
        ({"color": "lab"}, {}, {"color": "lab"}),
    ],
    ids=str,
)
def test_same_picture_as_the_four_nodes(server: ComfyServer, inputs: dict, step: dict, decode: dict) -> None:
    found = pixels(server.run(quick("photo.png", **inputs)))
    expected = pixels(server.run(without_t(example(SMALL, "photo.png", n4=step, n5=decode))))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE


def test_mask_time_and_transparency_reach_the_nodes_inside(server: ComfyServer) -> None:
    found, expected = quick("rgba.png"), without_t(example(SMALL, "rgba.png"))
    for workflow, node_id in ((found, NODE), (expected, "4")):
        workflow["20"] = {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["1", 0], "alpha": ["1", 1]}}
        workflow["21"] = {"class_type": "SolidMask", "inputs": {"value": 0.5, "width": 21, "height": 13}}
        workflow["22"] = {"class_type": "PrimitiveFloat", "inputs": {"value": 0.3}}
        workflow[node_id]["inputs"] |= {"image": ["20", 0], "mask": ["21", 0], "t": ["22", 0]}
    ours, theirs = (pixels(server.run(workflow)) for workflow in (found, expected))
    assert ours.shape == theirs.shape == (52, 84, 4)
    assert np.abs(ours - theirs).max() <= TOLERANCE
    del found[NODE]["inputs"]["mask"], found[NODE]["inputs"]["t"]
    assert np.abs(pixels(server.run(found)) - theirs).max() > TOLERANCE


@pytest.mark.parametrize(
    ("change", "work"),
    [
        ({"realism": 0.5}, {"decode"}),
        ({"color": "wavelet"}, {"decode"}),
        ({"scale": 2.0}, {"step", "decode"}),
    ],
    ids=str,
)
def test_a_change_does_no_more_work_than_it_must(server: ComfyServer, change: dict, work: set[str]) -> None:
    assert worked(server, quick("wide.png")) <= {"image", "loader", "step", "decode"}
    assert worked(server, quick("wide.png", **change)) == work


def test_the_nodes_stay_cheap_one_by_one_too(server: ComfyServer) -> None:
    watch(server, example(SMALL, "wide.png"))
    changed = watch(server, example(SMALL, "wide.png", n5={"realism": 0.7})).ran
    assert changed == ["5", "6"]


def test_a_list_of_pictures_is_worked_through(server: ComfyServer) -> None:
    """As from a folder: each has its own size and its own result."""
    folder = server.input / "some"
    folder.mkdir(exist_ok=True)
    for name in ("photo.png", "tiny.png"):
        (folder / name).write_bytes((server.input / name).read_bytes())
    loader = {"class_type": "LoadImageDataSetFromFolder", "inputs": {"folder": "some"}}
    result = server.run(quick("photo.png") | {"1": loader})
    assert sorted(Image.open(path).size for path in result.images) == [(20, 12), (160, 112)]


def test_what_was_done_stands_on_the_node(server: ComfyServer) -> None:
    server.forget()
    events = watch(server, quick("wide.png", scale=2.0))
    (*_, (node, text)) = events.texts
    assert node == NODE
    assert "150 x 90 to 300 x 180 px (2x)" in text and "fp32" in text and "tile" in text
    assert " is rebuilt" in text and "decode" in text
    shown = [data["output"]["text"] for data in events.of("executed") if "text" in (data["output"] or {})]
    assert shown[-1] == [text]


def test_a_node_shows_the_picture_while_it_is_decoded(server: ComfyServer) -> None:
    """The tiles that are done, in the enlarged input; only where that takes a while."""
    with Image.open(server.input / "wide.png") as wide:
        wide.resize((300, 180)).save(server.input / "slow.png")
    server.forget()
    tiles = example(EMBEDDED_NAME, "slow.png", n3={"method": "calibrated"}, n5={"tile": 32})
    ((node, file), *_) = watch(server, tiles).previews
    shown = Image.open(io.BytesIO(file))
    assert node == DECODE and shown.size == (400, 240)
    plain = Image.open(server.input / "slow.png").resize(shown.size)
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(plain)).mean() < 20
    assert not watch(server, example(EMBEDDED_NAME, "dot.png", n3={"method": "calibrated"})).previews


def test_a_smaller_result_says_so(server: ComfyServer) -> None:
    events = watch(server, quick("wide.png", size_by="long edge", long_edge=75))
    assert "150 x 90 to 75 x 45 px (0.5x, smaller than the input)" in events.texts[-1][1]


def test_the_estimate_shows_its_map_and_a_word(server: ComfyServer) -> None:
    server.forget()
    shown = [data["output"] for data in watch(server, example(SMALL, "wide.png")).of("executed") if data["node"] == "3"]
    assert shown[0]["text"][0].startswith("t 0.") and len(shown[0]["images"]) == 1


def test_errors_inside_are_the_nodes_own(server: ComfyServer) -> None:
    for inputs, message in (
        ({"checkpoint": "absent.safetensors"}, "expected the checkpoint to be one of allosr2-mini (embedded)"),
        ({"realism": -1.0}, "expected realism to be a number of 0 to 100"),
    ):
        with pytest.raises(WorkflowError) as caught:
            server.run(quick("photo.png", **inputs))
        assert caught.value.node_type == "AlloSR2Upscale" and message in str(caught.value)


def test_a_base_is_handed_to_the_loader_inside(server: ComfyServer) -> None:
    workflow = with_node(quick("photo.png", vae=["9", 0]), "9", "VAELoader", vae_name="pixel_space")
    with pytest.raises(WorkflowError, match="brings its own MODEL and VAE"):
        server.run(workflow)
