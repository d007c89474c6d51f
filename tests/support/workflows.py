"""Workflows for the server tests, in API format."""

import copy
import json
import uuid
from pathlib import Path
from typing import Any

from comfy_server import ComfyServer
from safetensors.torch import load_file
from torch import Tensor

from allosr2_core.checkpoint.format import EMBEDDED_NAME

REPOSITORY = Path(__file__).resolve().parents[2]
API_WORKFLOW = REPOSITORY / "example_workflows" / "api" / "allosr2_upscale.json"
STOCK_WORKFLOW = REPOSITORY / "example_workflows" / "api" / "allosr2_stock_sampler.json"
UI_WORKFLOW = REPOSITORY / "example_workflows" / "allosr2_upscale.json"
QUICK_WORKFLOW = REPOSITORY / "example_workflows" / "allosr2_quick.json"
IMAGE, LOADER, ESTIMATE, UPSCALE, DECODE, SAVE = "1", "2", "3", "4", "5", "6"  # node ids of the API workflow

Workflow = dict[str, dict[str, Any]]


def example(checkpoint: str, image: str, **changes: dict[str, Any]) -> Workflow:
    """The four nodes of the example workflow, without its previews, with another checkpoint and image.

    `changes` are inputs by node id, as n4={"scale": 2.0}.
    """
    whole: Workflow = json.loads(API_WORKFLOW.read_text())
    workflow = {node_id: whole[node_id] for node_id in (IMAGE, LOADER, ESTIMATE, UPSCALE, DECODE, SAVE)}
    workflow[LOADER]["inputs"]["checkpoint"] = checkpoint
    workflow[IMAGE]["inputs"]["image"] = image
    for name, inputs in changes.items():
        workflow[name.removeprefix("n")]["inputs"].update(inputs)
    return workflow


def with_node(workflow: Workflow, node_id: str, class_type: str, **inputs: Any) -> Workflow:  # noqa: ANN401
    """A copy with one more node (or another node in the place of an old one)."""
    workflow = copy.deepcopy(workflow)
    workflow[node_id] = {"class_type": class_type, "inputs": inputs}
    return workflow


def without_t(workflow: Workflow) -> Workflow:
    """A copy whose upscaler chooses t itself."""
    workflow = copy.deepcopy(workflow)
    del workflow[UPSCALE]["inputs"]["t"]
    del workflow[ESTIMATE]
    return workflow


def renamed(source: Path, target: Path, checkpoint: str) -> Path:
    """The workflow file itself, or, for another checkpoint than the embedded one, a copy that names that."""
    if checkpoint == EMBEDDED_NAME:
        return source
    target.write_text(source.read_text().replace(EMBEDDED_NAME, checkpoint))
    return target


def save_latent(server: ComfyServer, workflow: Workflow, node_id: str) -> Tensor:
    """What core's Save Latent writes of a node's first output; nothing that was computed before is computed again."""
    name = uuid.uuid4().hex
    server.run(with_node(workflow, "90", "SaveLatent", samples=[node_id, 0], filename_prefix=name))
    (path,) = server.output.glob(f"{name}*.latent")
    return load_file(path)["latent_tensor"]
