"""Fixtures every test folder may use: the ComfyUI tree, and a small checkpoint with random weights."""

import sys
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
for folder in (REPOSITORY / "tools", REPOSITORY / "tests" / "support"):
    sys.path.insert(0, str(folder))


hypothesis.settings.register_profile("machines-differ", deadline=None)  # no test says how fast a machine is
hypothesis.settings.load_profile("machines-differ")


@pytest.fixture(scope="session")
def comfyui_root(request: pytest.FixtureRequest) -> Path:
    """The folder of --comfyui, else ComfyUI 0.3.75, fetched into the ignored cache the first time."""
    import comfyui

    return request.config.getoption("--comfyui") or comfyui.fetch()


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AlloSR2 checkpoint with random weights; every part has an effect, latent scale and shift too."""
    from small_checkpoint import save_small_checkpoint, small_config

    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_small_checkpoint(path, config=small_config(latent_scale=0.9, latent_shift=0.05))
    return path
