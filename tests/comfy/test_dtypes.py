"""In which type the embedded checkpoint computes: the host's options win, and what they cost the picture."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer
from pictures import soften
from PIL import Image
from workflows import REPOSITORY, STOCK_WORKFLOW, Workflow, example, save_latent, without_t

from allosr2_core.checkpoint.format import EMBEDDED_NAME

SAMPLER = "11"


@pytest.fixture(scope="module")
def found(comfyui_root: Path) -> dict[str, Any]:
    """What dtype_worker.py measured."""
    worker = REPOSITORY / "tests" / "support" / "dtype_worker.py"
    command = [sys.executable, str(worker), str(comfyui_root), str(REPOSITORY)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("none, no units", ["float32", "float32", "float32"]),
        ("none, units", ["bfloat16", "bfloat16", "bfloat16"]),
        ("fp32, units", ["float32", "float32", "float32"]),
        ("bf16, no units", ["bfloat16", "float32", "bfloat16"]),
        ("bf16, units", ["bfloat16", "bfloat16", "bfloat16"]),
        ("fp16, units", ["float16", "float32", "float16"]),
        ("fp8, units", ["float8_e4m3fn", "float32", "float32"]),
    ],
)
def test_the_hosts_options_win(found: dict[str, Any], case: str, expected: list[str]) -> None:
    """Types of the MODEL's weights, of its products and of the VAE; on a CPU the host casts all but fp32."""
    assert found["types"][case] == expected


@pytest.mark.parametrize(("case", "stored"), [("bf16", "bfloat16"), ("cast", "bfloat16"), ("fp16", "float16")])
def test_narrow_types_give_the_same_picture(found: dict[str, Any], case: str, stored: str) -> None:
    of = found["quality"][case]
    assert of["stored"] == stored
    assert 55.0 <= of["psnr"] < 100.0
    assert of["t"] <= 1e-3
    assert of["types"] == ["float32"]


def test_memory_is_counted_in_the_type_of_the_products(found: dict[str, Any]) -> None:
    (flow, vae), of = found["quality"]["fp32"]["memory"], found["quality"]
    assert of["bf16"]["memory"] == [flow / 2, vae / 2]
    assert of["cast"]["memory"] == of["fp16"]["memory"] == [flow, vae / 2]


@pytest.mark.parametrize("strength", ["0.0", "0.6"])
def test_patched_weights_are_rounded_once(found: dict[str, Any], strength: str) -> None:
    assert found["rounding"][strength] == {"flow": True, "vae": True, "detached": True}


def test_weights_may_stay_away_from_the_device(found: dict[str, Any]) -> None:
    of = found["offloaded"]
    assert of["fp32"] <= 1e-5
    assert max(of["bf16"], of["cast"], of["fp16"]) <= 0.02  # the host then adds patches in the type of the weights


def test_pictures_in_half_precision_are_taken(found: dict[str, Any]) -> None:
    """As a host hands them that was started with --fp16-intermediates."""
    assert len(found["half"]) == 7 and all(found["half"].values()), found["half"]


@pytest.fixture(scope="module")
def narrow(comfyui_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A server that runs MODEL and VAE in bf16."""
    options = ("--cpu", "--bf16-unet", "--bf16-vae")
    with ComfyServer(comfyui_root, tmp_path_factory.mktemp("narrow"), arguments=options) as running:
        yield running


def test_the_workflows_in_bf16(server: ComfyServer, narrow: ComfyServer) -> None:
    """Under the host's own options: pictures and the stock sampler's latents are near those in fp32."""
    pixels, latents = [], []
    for host in (server, narrow):
        soften(server.input / "photo.png", host.input / "narrow.png")
        nodes = without_t(example(EMBEDDED_NAME, "narrow.png"))
        stock: Workflow = json.loads(STOCK_WORKFLOW.read_text())
        stock["1"]["inputs"]["image"] = "narrow.png"
        pixels.append([np.asarray(Image.open(*host.run(workflow).images)).astype(float) for workflow in (nodes, stock)])
        latents.append(save_latent(host, stock, SAMPLER))
    for exact, found in zip(*pixels, strict=True):
        error = np.square(exact - found).mean()
        assert 0 < error and 10.0 * np.log10(255.0**2 / error) >= 55.0
    gap, size = (float(values.square().mean().sqrt()) for values in (latents[0] - latents[1], latents[0]))
    assert 0 < gap <= 0.01 * size
