"""Memory on a FLUX.1-class base: the node against the host's own sampler, and what a card must hold.

The graphs: a ComfyUI server for each on the same 1.5 billion random weights; it runs once, and the peak resident memory
of the process is read (not with --quick). The card: weights are counted on meta tensors, the activations of one block
of each kind, and of the VAE, measured at their real widths (a network keeps no more than one block's at a time).
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from allosr2_core.adapters.lora import branch_shapes, matching_layers
from allosr2_core.bases.registry import BASES
from allosr2_core.checkpoint.config import AlloSR2Config
from allosr2_core.checkpoint.format import HOST_ENCODER, HOST_FLOW, LORA_ENCODER, LORA_FLOW, NULL, write_checkpoint
from allosr2_core.networks.autoencoders import autoencoder_params, build_autoencoder
from allosr2_core.networks.flux import FluxConditioning, FluxVelocity, NullFlux
from allosr2_core.networks.kl_autoencoder import KLAutoencoder
from allosr2_core.networks.registry import build_network
from tools import comfyui
from tools.comfy_server import ComfyServer

from .measure import MEBI, Row, with_peak

TARGETS = [r"double_blocks\.\d+\.(img|txt)_(attn\.(qkv|proj)|mlp\.[02])", r"single_blocks\.\d+\.linear[12]"]
RANK, TOKENS, T = 16, 256, 0.3
TRANSFORMER, AE, ADAPTER = "flux.safetensors", "ae.safetensors", "adapter.safetensors"
BITS = {"bf16": 16.0, "fp8": 8.0, "GGUF Q8_0": 8.5, "GGUF Q5_K": 5.5, "GGUF Q4_K": 4.5}
"""Bits a weight takes; GGUF's are those of its block formats."""
SIDES = (512, 768, 1024)
"""Sides of a tile, px."""
M = TypeVar("M", bound=nn.Module)


# --- the node against the host's sampler --------------------------------------------------------------------------


def write_files(models: Path, depth: int = 2, singles: int = 6) -> int:
    """Random transformer (bf16), VAE and adapter below a models folder; returns the transformer's parameters."""
    spec = dict(BASES["flux1-dev"].network) | {"depth": depth, "depth_single_blocks": singles}
    autoencoder = BASES["flux1-dev"].autoencoder
    with torch.device("meta"):
        network, autoencoder = build_network(spec), build_autoencoder(autoencoder_params(autoencoder))
    assert isinstance(network, NullFlux) and isinstance(autoencoder, KLAutoencoder)  # noqa: S101
    flux = network.velocity.flux
    parts = {"diffusion_models": (flux, TRANSFORMER, torch.bfloat16), "vae": (autoencoder, AE, torch.float32)}
    for folder, (module, name, dtype) in parts.items():
        (models / folder).mkdir(parents=True, exist_ok=True)
        tensors = {key: _random(key, value.shape, dtype) for key, value in module.state_dict().items()}
        save_file(tensors, models / folder / name)
    lora = {}
    for part, targets, prefix in (
        (flux, TARGETS, LORA_FLOW + HOST_FLOW),
        (autoencoder.encoder, ["conv_in"], LORA_ENCODER + HOST_ENCODER),
    ):
        for layer, module in matching_layers(part, targets).items():
            for suffix, shape in branch_shapes(module, RANK).items():
                lora[prefix + layer + suffix] = 0.01 * torch.randn(shape) if shape else torch.tensor(float(RANK))
    lora |= {NULL + "context": torch.randn(1, TOKENS, 4096), NULL + "pooled": torch.randn(1, 768)}
    config = AlloSR2Config(
        base="flux1-dev",
        network=spec,
        autoencoder=autoencoder,
        adapter={"transformer": TARGETS, "vae_encoder": ["conv_in"]},
        snr_head={},
        init="aligned",
        t_star=T,
        t_min=T,
        t_max=T,
        t_method="calibrated",
        scale=4,
        trained_size=2048,
        tile_size=2048,  # both graphs see the picture in one piece
        latent_channels=16,
        latent_downscale=8,
        latent_scale=autoencoder["scale_factor"],
        latent_shift=autoencoder["shift_factor"],
    )
    (models / "allosr2").mkdir(parents=True, exist_ok=True)
    path = models / "allosr2" / ADAPTER
    write_checkpoint(path, config, {}, lora, dtype=torch.float16, title="random", license="none")
    return sum(parameter.numel() for parameter in flux.parameters())


def _random(name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    if len(shape) == 1:
        return torch.full(
            shape, 1.0 if name.endswith(("scale", "norm.weight", "norm1.weight", "norm2.weight")) else 0.0, dtype=dtype
        )
    return torch.empty(shape, dtype=dtype).normal_().mul_(shape[1:].numel() ** -0.5)


def graph(sampler: str) -> dict[str, Any]:
    """The same step as a workflow: with the pack's node ("node") or with core nodes ("host")."""
    common = {
        "1": _node("LoadImage", image="input.png"),
        "2": _node("UNETLoader", unet_name=TRANSFORMER, weight_dtype="default"),
        "3": _node("VAELoader", vae_name=AE),
        "4": _node("AlloSR2Loader", checkpoint=ADAPTER, strength=1.0, model=["2", 0], vae=["3", 0]),
        "20": _node("ImageScaleBy", image=["1", 0], upscale_method="bicubic", scale_by=4.0),
    }
    if sampler == "node":
        return common | {
            "5": _node(
                "AlloSR2OneStepUpscale",
                model=["4", 0],
                vae=["4", 1],
                allosr2=["4", 2],
                image=["20", 0],
                size_by="scale",
                scale=1.0,
                long_edge=3840,
                tile=0,
                overlap=64,
            ),
            "9": _node("SaveLatent", samples=["5", 0], filename_prefix="node"),
        }
    return common | {
        "5": _node("VAEEncode", pixels=["20", 0], vae=["4", 1]),
        "6": _node("BasicScheduler", model=["4", 0], scheduler="simple", steps=1, denoise=1.0),
        "7": _node("SetFirstSigma", sigmas=["6", 0], sigma=T),
        "8": _node("BasicGuider", model=["4", 0], conditioning=["4", 3]),
        "10": _node("DisableNoise"),
        "11": _node("KSamplerSelect", sampler_name="euler"),
        "12": _node(
            "SamplerCustomAdvanced",
            noise=["10", 0],
            guider=["8", 0],
            sampler=["11", 0],
            sigmas=["7", 0],
            latent_image=["5", 0],
        ),
        "9": _node("SaveLatent", samples=["12", 0], filename_prefix="host"),
    }


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def compare(side: int) -> list[Row]:
    """Peak memory of a server after each graph, and the ratio node / host."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_files(base / "models")
        (base / "input").mkdir()
        Image.effect_noise((side // 4, side // 4), 60).convert("RGB").save(base / "input" / "input.png")
        for sampler in ("host", "node"):
            with ComfyServer(comfyui.fetch(), base) as server:
                server.run(graph(sampler))
                peaks[sampler] = server.peak_memory() / MEBI
    figures = {"memory_ratio": peaks["node"] / peaks["host"]}
    return [
        Row("flux_memory", "host's sampler", f"{side} px", peak_mb=peaks["host"]),
        Row("flux_memory", "node", f"{side} px", peak_mb=peaks["node"], against="host's sampler", figures=figures),
    ]


# --- what a card must hold ----------------------------------------------------------------------------------------


def peak_of(function: Callable[[int], Callable[[], Any]], side: int) -> float:
    """MiB that what `function` prepares takes at its peak, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_measure, args=(function, side, results))
    process.start()
    grown = results.get()
    process.join()
    return grown


def _measure(function: Callable[[int], Callable[[], Any]], side: int, results: Any) -> None:
    results.put(with_peak(function(side))[1])


def one_block_of_each(side: int) -> Callable[[], Any]:
    """A step of FLUX.1's widths, one block of each kind, bf16, on a tile of `side` px with 256 text tokens."""
    spec = dict(BASES["flux1-dev"].network) | {"depth": 1, "depth_single_blocks": 1}
    with torch.device("meta"):
        network = build_network(spec)
    assert isinstance(network, NullFlux)  # noqa: S101
    flux = _random_module(network.velocity.flux)
    velocity = FluxVelocity(flux, compute_dtype=torch.bfloat16)
    cond = FluxConditioning(torch.zeros(1, TOKENS, 4096), torch.zeros(1, 768), torch.ones(1))
    z = torch.randn(1, 16, side // 8, side // 8)
    return lambda: velocity(z, torch.tensor([T]), cond)


def vae_encode(side: int) -> Callable[[], Any]:
    autoencoder = _random_autoencoder()
    pixels = torch.rand(1, 3, side, side, dtype=torch.bfloat16)
    return lambda: autoencoder.encode(pixels)


def vae_decode(side: int) -> Callable[[], Any]:
    autoencoder = _random_autoencoder()
    z = torch.randn(1, 16, side // 8, side // 8, dtype=torch.bfloat16)
    return lambda: autoencoder.decode(z)


def _random_autoencoder() -> KLAutoencoder:
    with torch.device("meta"):
        autoencoder = build_autoencoder(autoencoder_params(BASES["flux1-dev"].autoencoder))
    assert isinstance(autoencoder, KLAutoencoder)  # noqa: S101
    return _random_module(autoencoder)


def _random_module(module: M) -> M:
    """A module from the meta device in bf16: nothing wider is made on the way that would hide a later peak."""
    module = module.to(torch.bfloat16).to_empty(device="cpu").requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(std=0.02)
    return module


def table(sides: Sequence[int]) -> list[Row]:
    """Weights by type, and activations by tile."""
    with torch.device("meta"):
        network = build_network(BASES["flux1-dev"].network)
        autoencoder = build_autoencoder(autoencoder_params(BASES["flux1-dev"].autoencoder))
    count, vae = (sum(p.numel() for p in part.parameters()) for part in (network, autoencoder))
    rows = [
        Row("flux_memory", "transformer weights", name, peak_mb=count * bits / 8 / MEBI) for name, bits in BITS.items()
    ]
    rows.append(Row("flux_memory", "VAE weights", "bf16", peak_mb=vae * 2 / MEBI))
    for name, function in (("flow", one_block_of_each), ("encode", vae_encode), ("decode", vae_decode)):
        rows += [Row("flux_memory", name, f"{side} px", peak_mb=peak_of(function, side)) for side in sides]
    return rows


def run(quick: bool) -> list[Row]:
    """The two graphs, then what a card must hold; peak_mb is MiB."""
    return table(SIDES[:1]) if quick else compare(SIDES[0]) + table(SIDES)
