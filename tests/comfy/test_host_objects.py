"""The MODEL and VAE handed out are the host's own: its samplers, LoRA loader and tiled VAE calls work on them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(comfyui_root: Path, small_checkpoint: Path) -> dict[str, Any]:
    """What host_worker.py measured."""
    worker = REPOSITORY / "tests" / "support" / "host_worker.py"
    command = [sys.executable, str(worker), str(comfyui_root), str(REPOSITORY), str(small_checkpoint)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "No VAE weights detected" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("strength", ["0.0", "0.5", "1.0"])
def test_model_is_the_patched_prior(found: dict[str, Any], strength: str) -> None:
    assert found["apply_model"][strength] < 1e-5
    assert found["velocity"][strength] < 2e-5


def test_taking_the_patches_off_gives_the_prior_back(found: dict[str, Any]) -> None:
    assert found["prior_untouched"] == 0.0


def test_the_hosts_sampler_takes_the_same_step(found: dict[str, Any]) -> None:
    assert found["sampler"] < 1e-5


def test_the_hosts_lora_loader_takes_the_difference(found: dict[str, Any]) -> None:
    assert found["lora_loader"] < 1e-5


@pytest.mark.parametrize("kind", ["unknown", "shape", "partial"])
def test_a_partial_match_is_refused(found: dict[str, Any], kind: str) -> None:
    assert "do not: diffusion_model." in found["refusals"][kind]


def test_vae_is_the_cores_autoencoder(found: dict[str, Any]) -> None:
    assert found["encode"]["0.0"] < 1e-5 and found["encode"]["1.0"] < 1e-5
    assert found["decode"] < 1e-5


def test_the_hosts_tiled_vae_calls_work(found: dict[str, Any]) -> None:
    assert found["decode_tiled"] < 0.1 and found["encode_tiled"] < 0.5  # the host blends tiles: near, not equal
    assert found["cropped"] == [1, 16, 5, 8]


def test_an_automatic_tile_is_halved_until_it_fits(found: dict[str, Any]) -> None:
    """Tiles the user asked for are not: another size is another picture."""
    tried = found["out_of_memory"]
    assert tried["gap"] == 0.0
    assert tried["sides"][0] == 40 and tried["sides"].count(16) > 1
    assert tried["sides"][-1] == 24 and tried["refused"] == "no memory"


def test_memory_estimates_are_set(found: dict[str, Any]) -> None:
    assert found["memory_required"] > 0 and min(found["vae_memory"]) > 0


def test_every_bar_ends_at_its_total(found: dict[str, Any]) -> None:
    """With tiles smaller than the checkpoint's: encoding has the checkpoint's tiles, the flow those asked for.

    The SNR head takes part: two pictures tick more often than their encodes.
    """
    estimate, step, decode = found["progress"]
    assert all(ticks == total > 2 for ticks, total in (estimate, step, decode))
