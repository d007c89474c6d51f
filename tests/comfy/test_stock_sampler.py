"""The workflow of core nodes only, around the loader's MODEL: the latents of AlloSR2 One-Step Upscale."""

import json
from pathlib import Path

import pytest
from comfy_server import ComfyServer
from pictures import soften
from workflows import REPOSITORY, STOCK_WORKFLOW, UPSCALE, Workflow, example, save_latent, with_node

from allosr2_core.checkpoint.format import EMBEDDED_NAME, embedded_path
from allosr2_core.cli import main as cli

SMALL = "small.safetensors"
SAMPLER = "11"


@pytest.mark.parametrize("checkpoint", [EMBEDDED_NAME, SMALL])
@pytest.mark.parametrize("image", ["photo.png", "wide.png"])
def test_the_samplers_latents_are_the_nodes(server: ComfyServer, checkpoint: str, image: str) -> None:
    stock: Workflow = json.loads(STOCK_WORKFLOW.read_text())
    soften(server.input / image, server.input / "soft.png")
    stock["1"]["inputs"]["image"] = "soft.png"
    stock["2"]["inputs"]["checkpoint"] = checkpoint
    found = save_latent(server, stock, SAMPLER)
    node = example(checkpoint, "soft.png", n4={"tile": 1024})  # in one piece, as the sampler sees it
    expected = save_latent(server, node, UPSCALE)
    assert found.std() > 0.1
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-4


def test_the_exported_lora_is_the_adapter(server: ComfyServer) -> None:
    """On the bare prior, core's LoRA loader takes every key of it and gives the loader's own MODEL."""
    target = server.models / "loras" / "allosr2.safetensors"
    target.parent.mkdir(exist_ok=True)
    assert cli.main(["export-lora", str(embedded_path()), str(target)]) == 0
    soften(server.input / "photo.png", server.input / "soft.png")
    stock: Workflow = json.loads(STOCK_WORKFLOW.read_text())
    stock["1"]["inputs"]["image"] = "soft.png"
    bare = with_node(stock, "50", "AlloSR2Loader", checkpoint=EMBEDDED_NAME, strength=0.0)
    bare = with_node(bare, "51", "LoraLoaderModelOnly", model=["50", 0], lora_name=target.name, strength_model=1.0)
    expected = save_latent(server, stock, SAMPLER)
    for node_id in ("6", "8"):
        bare[node_id]["inputs"]["model"] = ["50", 0]
    assert float((save_latent(server, bare, SAMPLER) - expected).abs().max()) > 0.01
    for node_id in ("6", "8"):
        bare[node_id]["inputs"]["model"] = ["51", 0]
    assert float((save_latent(server, bare, SAMPLER) - expected).abs().max()) <= 1e-4
    assert "lora key not loaded" not in server.log()


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
