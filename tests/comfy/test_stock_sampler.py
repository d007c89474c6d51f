"""The workflow of core nodes only, around the loader's MODEL: the latents of AlloSR2 One-Step Upscale."""

import json
import uuid
from pathlib import Path

import pytest
from comfy_server import ComfyServer
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from workflows import REPOSITORY, STOCK_WORKFLOW, UPSCALE, Workflow, example, with_node

SMALL = "small.safetensors"
SAMPLER = "11"


def latent(server: ComfyServer, workflow: Workflow, source: str) -> Tensor:
    """What core's Save Latent writes of a node's first output."""
    name = uuid.uuid4().hex
    server.run(with_node(workflow, "90", "SaveLatent", samples=[source, 0], filename_prefix=name))
    (path,) = server.output.glob(f"{name}*.latent")
    return load_file(path)["latent_tensor"]


def soften(source: Path, target: Path) -> None:
    """The picture cut to sides in multiples of 4, with less contrast.

    Other sides the node pads and the sampler does not; and core's bicubic leaves what overshoots 0..1, where the node
    takes 0 or 1.
    """
    with Image.open(source) as picture:
        cut = picture.convert("RGB").crop((0, 0, picture.width // 4 * 4, picture.height // 4 * 4))
        cut.point(lambda value: 70 + 0.45 * value).save(target)


@pytest.mark.parametrize("checkpoint", ["allosr2-mini (embedded)", SMALL])
@pytest.mark.parametrize("image", ["photo.png", "wide.png"])
def test_the_samplers_latents_are_the_nodes(server: ComfyServer, checkpoint: str, image: str) -> None:
    stock: Workflow = json.loads(STOCK_WORKFLOW.read_text())
    soften(server.input / image, server.input / "soft.png")
    stock["1"]["inputs"]["image"] = "soft.png"
    stock["2"]["inputs"]["checkpoint"] = checkpoint
    found = latent(server, stock, SAMPLER)
    node = example(checkpoint, "soft.png", n4={"scale": 1.0, "tile": 1024, "image": ["4a", 0]}, n3={"scale": 1.0})
    node["3"]["inputs"]["image"] = ["4a", 0]  # both from the same enlarged picture, in one piece
    node = with_node(node, "4a", "ImageScaleBy", image=["1", 0], upscale_method="bicubic", scale_by=4.0)
    expected = latent(server, node, UPSCALE)
    assert found.std() > 0.1
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize("name", ["allosr2_upscale", "allosr2_stock_sampler", "allosr2_flux"])
def test_both_forms_of_a_workflow_are_one_graph(name: str) -> None:
    """Same nodes, same links: what the canvas shows is what the API file runs."""
    folder = REPOSITORY / "example_workflows"
    canvas = json.loads((folder / f"{name}.json").read_text())
    prompt: Workflow = json.loads((folder / "api" / f"{name}.json").read_text())
    nodes = {str(node["id"]): node for node in canvas["nodes"]}
    drawn = {
        (str(source), slot, str(target), nodes[str(target)]["inputs"][place]["name"])
        for _, source, slot, target, place, _ in canvas["links"]
        if str(target) in prompt
    }
    stated = {
        (value[0], value[1], node_id, key)
        for node_id, node in prompt.items()
        for key, value in node["inputs"].items()
        if isinstance(value, list)
    }
    assert drawn == stated
    assert {i: node["class_type"] for i, node in prompt.items()} == {i: nodes[i]["type"] for i in prompt}
    assert Path(folder / f"{name}.jpg").is_file()
