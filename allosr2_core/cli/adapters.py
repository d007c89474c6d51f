"""The command line's commands on adapters: hand one to the host's LoRA loader, take one in from PEFT folders."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..adapters.lora import ALPHA_KEY
from ..adapters.targets import patterns_for
from ..bases.peft_import import read_peft_encoder, read_peft_transformer, shifted_step_to_t
from ..bases.registry import BASES, Base, read_tensors
from ..checkpoint.config import AlloSR2Config
from ..checkpoint.format import (
    FORMAT_KEY,
    HOST_ENCODER,
    HOST_FLOW,
    LORA_ENCODER,
    LORA_FLOW,
    NULL,
    load_checkpoint,
    write_checkpoint,
    write_safetensors,
)
from ..errors import AlloSR2Error, one_line
from ..flow import INITS
from ..networks.autoencoders import autoencoder_params, build_autoencoder
from ..networks.flux import NullFlux
from ..networks.kl_autoencoder import KLAutoencoderParams
from ..networks.registry import build_network
from ..safetensors_file import opened

IMPORTED_SCALE, IMPORTED_SIZE = 4, 1024
"""What is assumed of an adapter that does not say: enlargement, and the side of its training crops in px."""


def add_commands(commands: Any) -> None:  # noqa: ANN401 - argparse's action has no public type
    """Add `export-lora` and `import-peft` to the command line."""
    export = commands.add_parser("export-lora", help="the flow's part of a checkpoint as a LoRA file for core loaders")
    export.add_argument("checkpoint", metavar="IN", type=Path)
    export.add_argument("target", metavar="OUT", type=Path, help="a .safetensors file")
    export.set_defaults(run=_run_export)

    take = commands.add_parser(
        "import-peft",
        help="an adapter for a FLUX.1 base from PEFT folders",
        description="Turn folders of the peft library (adapter_model.safetensors and adapter_config.json), made for "
        "diffusers' FLUX.1 transformer and VAE encoder, into an AlloSR2 adapter.",
    )
    take.add_argument("--transformer", type=Path, required=True, metavar="DIR", help="the transformer's folder")
    take.add_argument("--vae-encoder", type=Path, metavar="DIR", help="the VAE encoder's folder, if it was adapted")
    take.add_argument("--base", choices=sorted(BASES), required=True, help="what it was trained on")
    start = take.add_mutually_exclusive_group(required=True)
    start.add_argument("--t", type=float, help="the time it starts from, between 0 and 1")
    start.add_argument(
        "--shifted-step", type=int, metavar="K", help="the same as a step of FLUX's 1000-step schedule at 1024 px"
    )
    take.add_argument(
        "--init", choices=INITS, required=True, help="raw: it starts from z_L (OMGSR); aligned: (1-t) z_L"
    )
    take.add_argument("--guidance", type=float, default=1.0, help="for FLUX.1-dev (default 1.0)")
    take.add_argument(
        "--null", type=Path, metavar="FILE", help="safetensors with context and pooled of its empty prompt"
    )
    take.add_argument("target", metavar="OUT", type=Path, help="a .safetensors file")
    take.set_defaults(run=_run_import)


def _run_export(options: argparse.Namespace) -> int:
    checkpoint = load_checkpoint(options.checkpoint)
    _check_target(options.target, (options.checkpoint,))
    tensors = checkpoint.group(LORA_FLOW)
    metadata = {
        "modelspec.architecture": checkpoint.config.base,
        "modelspec.title": f"AlloSR2 {checkpoint.config.base}",
    }
    with opened(options.checkpoint, options.checkpoint.name) as file:
        metadata["license"] = (file.metadata() or {}).get("license", "")
    write_safetensors(options.target, {name: value.contiguous() for name, value in tensors.items()}, metadata)
    sys.stdout.write(f"{one_line(str(options.target))}: {len(tensors)} tensors for the host's LoRA loader\n")
    return 0


def _run_import(options: argparse.Namespace) -> int:
    t = shifted_step_to_t(options.shifted_step) if options.t is None else options.t
    _check_target(options.target, ())
    layers = import_peft(
        options.transformer,
        options.vae_encoder,
        options.base,
        BASES[options.base],
        t=t,
        init=options.init,
        guidance=options.guidance,
        null=options.null,
        target=options.target,
    )
    target = one_line(str(options.target))
    sys.stdout.write(f"{target}: {json.dumps(layers)} layers, t = {t:.4f}, init = {options.init}\n")
    return 0


def import_peft(
    transformer: Path,
    encoder: Path | None,
    name: str,
    base: Base,
    *,
    t: float,
    init: str,
    guidance: float,
    null: Path | None,
    target: Path,
) -> dict[str, int]:
    """Write an adapter file from PEFT folders; returns how many layers of each part it changes.

    Args:
        transformer, encoder: the folders; None for an encoder that was not adapted.
        name, base: what it was trained on, as in BASES.
        t: where the one step starts, in (0, 1).
        init: "raw" or "aligned".
        guidance: told to bases that take one.
        null: safetensors file with `context` (1, T, D) and `pooled` (1, V); None leaves the prompt to the user.
        target: the file to write.

    Raises:
        AlloSR2Error: what is in the folders does not fit the base, or cannot be represented.
    """
    spec = dict(base.network) | ({"guidance": float(guidance)} if base.network["guidance_embed"] else {})
    with torch.device("meta"):
        network, autoencoder = build_network(spec), build_autoencoder(autoencoder_params(base.autoencoder))
    params = autoencoder_params(base.autoencoder)
    if not isinstance(network, NullFlux) or not isinstance(params, KLAutoencoderParams):
        raise AlloSR2Error(f"expected a FLUX.1 base; {name} is none")
    parts: dict[str, tuple[nn.Module, str, dict[str, torch.Tensor]]] = {
        "transformer": (
            network.velocity.flux,
            HOST_FLOW,
            read_peft_transformer(transformer, network.velocity.flux.params),
        ),
        "vae_encoder": (
            autoencoder.encoder,
            HOST_ENCODER,
            {} if encoder is None else read_peft_encoder(encoder, params),
        ),
    }
    layers = {
        part: [key.removeprefix(prefix).removesuffix(ALPHA_KEY) for key in tensors if key.endswith(ALPHA_KEY)]
        for part, (_, prefix, tensors) in parts.items()
    }
    config = AlloSR2Config(
        base=name,
        network=spec,
        autoencoder=base.autoencoder,
        adapter={part: patterns_for(layers[part], network_part) for part, (network_part, _, _) in parts.items()},
        snr_head={},
        init=init,  # pyright: ignore[reportArgumentType] - checked by the configuration
        t_star=t,
        t_min=t,
        t_max=t,
        t_method="calibrated",
        scale=IMPORTED_SCALE,
        trained_size=IMPORTED_SIZE,
        tile_size=IMPORTED_SIZE,
        latent_channels=params.latent_channels,
        latent_downscale=params.downscale,
        latent_scale=base.autoencoder["scale_factor"],
        latent_shift=base.autoencoder["shift_factor"],
    )
    tensors = {LORA_FLOW + key: value for key, value in parts["transformer"][2].items()}
    tensors |= {LORA_ENCODER + key: value for key, value in parts["vae_encoder"][2].items()}
    tensors |= {} if null is None else {NULL + key: value for key, value in read_tensors(null).items()}
    write_checkpoint(
        target,
        config,
        {"imported": "PEFT folders", "data": "see where they were published"},
        tensors,
        dtype=torch.float32,
        title=f"AlloSR2 for {base.title}, imported",
        license=base.license,
    )
    return {part: len(names) for part, names in layers.items()}


def _check_target(target: Path, sources: tuple[Path, ...]) -> None:
    """AlloSR2Error for a target that is no .safetensors file, is the source, or holds something not of AlloSR2."""
    if target.suffix != ".safetensors":
        raise AlloSR2Error(f"{target}: expected a name that ends in .safetensors")
    if any(target.exists() and target.samefile(source) for source in sources):
        raise AlloSR2Error(f"{target}: expected an output that is not the input")
    if target.exists() and not _may_replace(target):
        raise AlloSR2Error(f"{target}: expected a new file, this one holds something else; remove it first")


def _may_replace(target: Path) -> bool:
    try:
        with opened(target, target.name) as file:
            metadata = file.metadata() or {}
    except AlloSR2Error:
        return False
    return FORMAT_KEY in metadata or metadata.get("modelspec.title", "").startswith("AlloSR2 ")
