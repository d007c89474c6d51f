"""Adapters on host models of every family: recognised, patched on clones, one step as the model itself computes it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from allosr2_core.bases.registry import FAMILIES

REPOSITORY = Path(__file__).resolve().parents[2]
NORM = "diffusion_model.double_blocks.0.img_attn.norm.query_norm"


@pytest.fixture(scope="module")
def found(comfyui_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What family_worker.py measured."""
    worker = REPOSITORY / "tests" / "support" / "family_worker.py"
    folder = tmp_path_factory.mktemp("families")
    command = [sys.executable, str(worker), str(comfyui_root), str(REPOSITORY), str(folder)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_step_is_the_patched_models(found: dict[str, Any], family: str) -> None:
    of = found[family]
    assert of["size"] > 0.1 and of["moved"] > 1e-3
    assert of["velocity"] <= 1e-4
    assert of["encoder_moved"] > 1e-3 and of["encoded"] <= 1e-4
    assert of["plain_encoder"]


@pytest.mark.parametrize("family", FAMILIES)
def test_offloaded_and_narrow_weights_work(found: dict[str, Any], family: str) -> None:
    of = found[family]
    assert of["offloaded"] <= 1e-4
    assert 0 < of["stored"]["bf16"] < 0.03 * of["size"]
    assert of["stored"]["bf16"] < of["stored"]["fp8"] < 0.5 * of["size"]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_came_in_is_untouched(found: dict[str, Any], family: str) -> None:
    of = found[family]
    assert of["untouched"] and of["same_output"] and of["same_latent"] and of["patches_of_the_original"] == 0


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("z-image for flux", "was trained on flux; got a Z-Image model (Lumina2) on 'model'"),
        ("flux for z-image", "got a FLUX.1 model (Flux) on 'model'"),
        ("flux2 for sd3.5", "got a FLUX.2 model (Flux2) on 'model'"),
        ("sd3.5 for flux2", "got a Stable Diffusion 3.5 model (SD3) on 'model'"),
        ("schnell for dev", "guidance_embed True there, False here"),
        (
            "unknown gain",
            "expected a FLUX.1 transformer with the parameter double_blocks.0.img_attn.norm.query_norm.scale or "
            "double_blocks.0.img_attn.norm.query_norm.weight; none of its ",
        ),
        (
            "other width",
            "1 of 3 do not: diffusion_model.layers.0.attention.qkv.lora_B.weight (5, 3) for "
            "diffusion_model.layers.0.attention.qkv.weight (768, 256)",
        ),
        ("other vae", "(16 channels, 1/8 size); got one with 128 channels, 1/16 size (AutoencodingEngine) on 'vae'"),
    ],
)
def test_another_base_is_refused(found: dict[str, Any], case: str, message: str) -> None:
    assert message in found["refusals"][case]


@pytest.mark.parametrize("gain", ["own", "scale", "weight"])
def test_head_norms_may_have_either_name(found: dict[str, Any], gain: str) -> None:
    """Hosts differ in it: the model is recognised, and a difference in either spelling lands on the gain."""
    of, names = found["namings"][gain], [f"{NORM}.{kind}" for kind in ("scale", "weight")]
    assert len(of["names"]) == 1 and of["names"][0] in ([f"{NORM}.{gain}"] if gain != "own" else names)
    assert of["plain"] <= 1e-5 and of["adapted"] <= 1e-5
    assert of["moved"] > 1e-3
    assert of["differences"].keys() == {"scale", "weight"} and max(of["differences"].values()) <= 1e-5
    assert f"got two for 1: {of['names'][0]} as " in of["twice"]


def test_raw_adapters_start_a_stock_sampler_at_the_latent(found: dict[str, Any]) -> None:
    starts = found["starts"]
    assert starts["raw"] == 0.0 and starts["aligned"] <= 1e-6
    assert starts["sigmas"] == 0.0 and starts["shifts"][0] == 0.5 != starts["shifts"][1]


def test_a_vae_that_does_not_fit_runs_in_strips(found: dict[str, Any]) -> None:
    """Where the host would fall back to tiles: the same picture and latent, also after an attempt that failed."""
    of = found["strips"]
    assert of["decode"] <= 1e-5 and of["encode"] <= 1e-4
    assert of["attempts"] == 2 and of["halved"] == 0.5
