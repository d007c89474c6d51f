"""The bases adapters are made for: their architectures, and how to read their files (Black Forest Labs' names)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..adapters.weight_diff import listed
from ..checkpoint.config import AlloSR2Config
from ..errors import AlloSR2Error
from ..networks.codecs import build_codec, codec_params
from ..networks.families import spellings
from ..networks.flux import Flux
from ..networks.kl_autoencoder import Autoencoder
from ..networks.registry import NullFlux, build_network

_FLUX1 = {
    "type": "flux",
    "latent_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 19,
    "depth_single_blocks": 38,
    "axes_dim": [16, 56, 56],
    "theta": 10_000,
    "qkv_bias": True,
}
_FLUX1_VAE = {
    "type": "kl",
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "z_channels": 16,
    "scale_factor": 0.3611,
    "shift_factor": 0.1159,
}


@dataclass(frozen=True)
class Base:
    """A published model that adapters are made for."""

    title: str
    """As its makers call it."""
    network: Mapping[str, Any]
    """Its transformer, as `networks.build_network` takes it. The guidance is a checkpoint's own choice: 1.0 here."""
    autoencoder: Mapping[str, Any]
    """Its VAE, as `codecs.codec_params` takes it."""
    license: str
    """What its licence makes of adapters trained on it."""


BASES: dict[str, Base] = {
    "flux1-dev": Base(
        title="FLUX.1-dev",
        network=_FLUX1 | {"guidance_embed": True, "guidance": 1.0},
        autoencoder=_FLUX1_VAE,
        license="FLUX.1 [dev] Non-Commercial License",
    ),
    "flux1-schnell": Base(
        title="FLUX.1-schnell",
        network=_FLUX1 | {"guidance_embed": False, "guidance": None},
        autoencoder=_FLUX1_VAE,
        license="Apache-2.0",
    ),
}
"""By the name that checkpoints give under `base`."""


def base_name(network: Mapping[str, Any]) -> str:
    """The name of a flux network in BASES, or a description of one that is not there."""
    for name, base in BASES.items():
        if _architecture(base.network) == _architecture(network):
            return name
    double, single = network.get("depth"), network.get("depth_single_blocks")
    guidance = "with" if network.get("guidance_embed") else "without"
    return f"flux-{network.get('hidden_size')}-{double}+{single}-{guidance}-guidance"


def title_of(name: str) -> str:
    """The title of a base by its name, or the name of one that is not in BASES."""
    return BASES[name].title if name in BASES else name


def _architecture(network: Mapping[str, Any]) -> dict[str, Any]:
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in network.items()}
    return {key: value for key, value in lists.items() if key != "guidance"}


def read_base(
    config: AlloSR2Config,
    transformer: str | os.PathLike[str],
    autoencoder: str | os.PathLike[str],
    dtype: torch.dtype = torch.float32,
) -> tuple[Flux, Autoencoder]:
    """The transformer (in `dtype`) and the VAE (fp32) that an adapter with this configuration is for, frozen.

    Raises AlloSR2Error when a file is no safetensors file or holds other tensors than those of the base.
    """
    with torch.device("meta"):
        network, codec = build_network(config.network), build_codec(codec_params(config.autoencoder))
    if not isinstance(network, NullFlux) or not isinstance(codec, Autoencoder):
        raise AlloSR2Error(f"expected an adapter for a FLUX.1 base; this one is for {config.base}")
    assign(network.velocity.flux, read_transformer(transformer, dtype), str(transformer))
    assign(codec, {name: value.float() for name, value in read_tensors(autoencoder).items()}, str(autoencoder))
    return network.velocity.flux.eval().requires_grad_(False), codec.eval().requires_grad_(False)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file; AlloSR2Error names the path when it is none."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise AlloSR2Error(f"expected a safetensors file at {Path(path)}; {error}") from error


def read_transformer(path: str | os.PathLike[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """A transformer's tensors under the names of FLUX.1's own files; newer hosts save some under others."""
    return {spellings(name)[0]: value.to(dtype) for name, value in read_tensors(path).items()}


def assign(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a model made on the meta device its weights, all of them and no others; AlloSR2Error says what differs."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        other = [
            f"{n}: {expected[n]} and {found[n]}"
            for n in sorted(expected.keys() & found.keys())
            if expected[n] != found[n]
        ]
        raise AlloSR2Error(
            f"{where}: expected the tensors of the configured network; missing: {listed(missing)}; "
            f"not expected: {listed(extra)}; of other shapes: {listed(other)}"
        )
    model.load_state_dict(tensors, assign=True)
