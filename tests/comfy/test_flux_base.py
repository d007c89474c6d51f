"""The contract between trainer and nodes: an adapter trained on files of a FLUX.1 base, in ComfyUI on the same files.

The transformer has FLUX.1's widths, by which ComfyUI's loader recognises it, and one block of each kind; the VAE is
FLUX.1's. Weights are random, so only equality is looked at: with the core, which computes what was trained.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from comfy_server import ComfyServer, WorkflowError
from pictures import soften
from PIL import Image
from torch import Tensor
from workflows import IMAGE, LOADER, SAVE, STOCK_WORKFLOW, UPSCALE, Workflow, example, save_latent, with_node, without_t

from allosr2_core.bases.registry import BASES, read_base
from allosr2_core.checkpoint.format import EMBEDDED_NAME, load_checkpoint
from allosr2_core.cli import main as cli
from allosr2_core.image.read import load_image
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline, step
from tests.support.parts import encoded
from tests.support.tiny_base import base_table
from tests.support.tiny_training import to_toml, write_photos
from train.__main__ import main

ADAPTER, TRANSFORMER, AE = "flux.safetensors", "flux-base.safetensors", "flux-ae.safetensors"
T = 0.4
MODEL, VAE = "20", "21"


def narrow(base: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A base's architecture with one block of each kind and short text vectors."""
    network = dict(BASES[base].network) | {"depth": 1, "depth_single_blocks": 1, "context_in_dim": 64, "vec_in_dim": 32}
    autoencoder = dict(BASES[base].autoencoder)
    for part, keys in ((network, ("type", "latent_channels", "guidance")), (autoencoder, ("type",))):
        for key in keys:
            part.pop(key)
    return network, autoencoder


@dataclass(frozen=True)
class Contract:
    """What was trained, and the core on it."""

    upscaler: Pipeline
    server: ComfyServer

    def core_latent(self, image: str) -> Tensor:
        """Raw latents of one step from T."""
        with torch.inference_mode():
            z, _ = encoded(self.upscaler, load_image(self.server.input / image).image_BHWC)
            z = step(self.upscaler.backend.velocity, z, torch.tensor([T]), self.upscaler.config)
        return z / self.upscaler.config.latent_scale + self.upscaler.config.latent_shift

    def latent(self, workflow: Workflow, node_id: str) -> Tensor:
        """What core's Save Latent writes of a node's first output."""
        return save_latent(self.server, workflow, node_id)


@pytest.fixture(scope="module")
def contract(server: ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contract]:
    root = tmp_path_factory.mktemp("flux")
    write_photos(root, "train", [(100, 140)])
    write_photos(root, "val", [(80, 70)])
    network, autoencoder = narrow("flux1-dev")
    table = base_table(root, guidance=True, steps=3, flux=network, autoencoder=autoencoder)
    table["stages"]["sr"]["optim"] |= {"lr": 0.01, "warmup": 0}
    (root / "flux.toml").write_text(to_toml(table), encoding="utf-8")
    assert main(["sr", "--config", str(root / "flux.toml")]) == 0
    adapter = server.models / "allosr2" / ADAPTER
    assert main(["export", "--config", str(root / "flux.toml"), "--out", str(adapter), "--pairs", "2"]) == 0
    placed = {"diffusion_models": (root / "transformer.safetensors", TRANSFORMER), "vae": (root / "ae.safetensors", AE)}
    for folder, (source, name) in placed.items():
        (server.models / folder).mkdir(exist_ok=True)
        shutil.move(source, server.models / folder / name)
    checkpoint = load_checkpoint(adapter)
    parts = read_base(checkpoint.config, server.models / "diffusion_models" / TRANSFORMER, server.models / "vae" / AE)
    yield Contract(Pipeline.from_adapter(checkpoint, *parts), server)
    for folder, (_, name) in placed.items():
        (server.models / folder / name).unlink()  # two gigabytes


def on_base(image: str = "photo.png", weights: str = "default", **loader: Any) -> Workflow:  # noqa: ANN401
    """The example workflow with the base's loaders connected, one step from T."""
    workflow = with_node(
        without_t(example(ADAPTER, image)), MODEL, "UNETLoader", unet_name=TRANSFORMER, weight_dtype=weights
    )
    workflow = with_node(workflow, VAE, "VAELoader", vae_name=AE)
    workflow[LOADER]["inputs"] |= {"model": [MODEL, 0], "vae": [VAE, 0]} | loader
    return with_node(workflow, "23", "PrimitiveFloat", value=T) | {
        UPSCALE: {**workflow[UPSCALE], "inputs": workflow[UPSCALE]["inputs"] | {"t": ["23", 0]}}
    }


def test_one_step_in_the_host_is_the_cores(contract: Contract) -> None:
    found, expected = contract.latent(on_base(), UPSCALE), contract.core_latent("photo.png")
    assert found.shape == expected.shape == (1, 16, 16, 20)
    assert expected.std() > 0.5
    assert float((found - expected).abs().max()) <= 1e-4


def test_the_picture_is_the_cores(contract: Contract) -> None:
    image = load_image(contract.server.input / "photo.png").image_BHWC
    expected = (
        (contract.upscaler.upscale(image, UpscaleOptions(t=T))[0] * 255).round().clamp(0, 255).numpy().astype(int)
    )
    workflow = on_base()
    workflow[SAVE]["inputs"]["filename_prefix"] = "whole"  # another name, else nothing is saved a second time
    (path,) = contract.server.run(workflow).images
    found = np.asarray(Image.open(path)).astype(int)
    assert found.shape == expected.shape == (112, 160, 3) and expected.std() > 1
    assert np.abs(found - expected).max() <= 1


def test_the_adapter_changes_the_picture_by_strength(contract: Contract) -> None:
    at = {strength: contract.latent(on_base(strength=strength), UPSCALE) for strength in (0.0, 1.0)}
    assert float((at[0.0] - at[1.0]).abs().mean()) > 0.01


def test_fp8_weights_run(contract: Contract) -> None:
    found = contract.latent(on_base(weights="fp8_e4m3fn"), UPSCALE)
    expected = contract.core_latent("photo.png")
    assert bool(torch.isfinite(found).all())
    assert float((found - expected).square().mean().sqrt()) < 0.5 * float(expected.std())


def test_a_prompt_of_the_users_own_is_heard(contract: Contract) -> None:
    """The loader's CONDITIONING is the empty prompt; zeroed it is another one."""
    workflow = on_base()
    own = with_node(workflow, "24", "ConditioningZeroOut", conditioning=[LOADER, 3])
    heard = {}
    for name, source in (("none", None), ("empty", [LOADER, 3]), ("zero", ["24", 0])):
        graph = copy.deepcopy(own)
        if source:
            graph[UPSCALE]["inputs"]["conditioning"] = source
        heard[name] = contract.latent(graph, UPSCALE)
    assert torch.equal(heard["none"], heard["empty"])
    assert float((heard["none"] - heard["zero"]).abs().mean()) > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[LOADER]["inputs"].pop("model"), r"is an adapter for .*: connect the loader's input 'model'"),
        (lambda w: w[LOADER]["inputs"].pop("vae"), r"connect the loader's input 'vae' \(Load VAE\)"),
        (lambda w: w[LOADER]["inputs"].update(model=["30", 0]), r"trained on flux.*; got a model of another family"),
        (
            lambda w: w[LOADER]["inputs"].update(vae=["30", 1]),
            r"16 channels, 1/8 size\); got one with 16 channels, 1/4",
        ),
        (lambda w: w[UPSCALE]["inputs"].update(vae=[VAE, 0]), "needs the VAE that the AlloSR2 Loader hands out"),
        (lambda w: w[UPSCALE]["inputs"].update(model=[MODEL, 0]), "needs the MODEL that the AlloSR2 Loader hands out"),
    ],
    ids=["no model", "no vae", "other model", "other vae", "plain vae", "plain model"],
)
def test_what_does_not_fit_is_refused(contract: Contract, change: Any, message: str) -> None:  # noqa: ANN401
    workflow = with_node(on_base(), "30", "AlloSR2Loader", checkpoint=EMBEDDED_NAME, strength=1.0)
    change(workflow)
    with pytest.raises(WorkflowError, match=message):
        contract.server.run(workflow)


def test_core_nodes_take_the_same_step(contract: Contract) -> None:
    """The stock-sampler workflow on the base: with the loader's MODEL, and with core's LoRA loader instead."""
    server = contract.server
    soften(server.input / "photo.png", server.input / "soft.png", multiple=8)
    stock: Workflow = json.loads(STOCK_WORKFLOW.read_text())
    stock |= {key: on_base()[key] for key in (MODEL, VAE)} | {"2": on_base()[LOADER]}
    stock["1"]["inputs"]["image"] = "soft.png"
    stock["7"]["inputs"]["sigma"] = T
    del stock["3"]
    node = on_base("soft.png")
    node[UPSCALE]["inputs"]["tile"] = 1024  # in one piece, as the sampler sees it; the adapter was trained on 64 px
    expected, found = contract.latent(node, UPSCALE), contract.latent(stock, "11")
    assert found.shape == expected.shape and found.std() > 0.5
    assert float((found - expected).abs().max()) <= 1e-4

    target = server.models / "loras" / "flux.safetensors"
    target.parent.mkdir(exist_ok=True)
    assert cli.main(["export-lora", str(server.models / "allosr2" / ADAPTER), str(target)]) == 0
    tuned = with_node(stock, "51", "LoraLoaderModelOnly", model=[MODEL, 0], lora_name=target.name, strength_model=1.0)
    for node_id in ("6", "8"):
        tuned[node_id]["inputs"]["model"] = ["51", 0]
    assert float((contract.latent(tuned, "11") - expected).abs().max()) <= 1e-4
    assert "lora key not loaded" not in server.log()


def test_the_base_is_as_before(contract: Contract) -> None:
    """The user's own graph on the connected MODEL gives the same latents before and after an adapter ran on it."""
    plain = {
        MODEL: on_base()[MODEL],
        VAE: on_base()[VAE],
        IMAGE: on_base()[IMAGE],
        "31": {"class_type": "VAEEncode", "inputs": {"pixels": ["35", 0], "vae": [VAE, 0]}},
        "35": {
            "class_type": "ImageScale",
            "inputs": {"image": [IMAGE, 0], "upscale_method": "bicubic", "width": 64, "height": 64, "crop": "disabled"},
        },
        LOADER: on_base()[LOADER],
        "32": {"class_type": "FluxGuidance", "inputs": {"conditioning": [LOADER, 3], "guidance": 2.0}},
        "33": {
            "class_type": "KSampler",
            "inputs": {
                "model": [MODEL, 0],
                "positive": ["32", 0],
                "negative": ["32", 0],
                "latent_image": ["31", 0],
                "seed": 1,
                "steps": 2,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 0.8,
            },
        },
    }
    before = contract.latent(plain, "33")
    contract.latent(on_base(), UPSCALE)
    assert torch.equal(contract.latent(plain, "33"), before)
