"""The networks a configuration names, fresh or filled: from the run's own stages, or from files of a base (FLUX.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from allosr2_core.bases.registry import assign, read_tensors, read_transformer
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks import autoencoders
from allosr2_core.networks.autoencoders import Autoencoder
from allosr2_core.networks.registry import VelocityNetwork, build_network
from allosr2_core.snr import SNRHead, SNRHeadParams

from ..config import Config
from ..loop.state import load_export

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AUTOENCODER_EXPORT, PRIOR_EXPORT = "autoencoder/autoencoder.safetensors", "prior/velocity.safetensors"
"""Where the first two stages leave their results in a run folder."""
HEAD_LEVELS = 3
"""How often the SNR head halves the resolution."""


def autoencoder_spec(config: Config) -> dict[str, Any]:
    """The configured autoencoder as a checkpoint describes it."""
    return {"type": config.autoencoder.type, **config.autoencoder.params}


def build_autoencoder(config: Config) -> Autoencoder:
    """An autoencoder of the configured shape with fresh weights."""
    return autoencoders.build_autoencoder(autoencoders.autoencoder_params(autoencoder_spec(config), "autoencoder"))


def latent_channels(config: Config) -> int:
    """Channels of a latent."""
    return autoencoders.autoencoder_params(autoencoder_spec(config), "autoencoder").latent_channels


def network_spec(config: Config) -> dict[str, Any]:
    """The configured velocity network, on the autoencoder's latents, as a checkpoint describes it."""
    return {"type": config.network.type, "latent_channels": latent_channels(config), **config.network.params}


def build_velocity(config: Config) -> VelocityNetwork:
    """A velocity network of the configured type, on the autoencoder's latents, with fresh weights."""
    return build_network(network_spec(config))


def build_snr_head(config: Config) -> SNRHead:
    """An SNR head of the configured width, on the autoencoder's latents, with fresh weights."""
    return SNRHead(SNRHeadParams(latent_channels(config), config.stages.snr_head.hidden, HEAD_LEVELS))


def load_autoencoder(config: Config) -> Autoencoder:
    """The autoencoder to build on, frozen: the base's file or the result of this run's first stage."""
    base = config.base.autoencoder
    if base:
        with torch.device("meta"):
            model = build_autoencoder(config)
        assign(model, read_tensors(base), base)
    else:
        model = build_autoencoder(config)
        load_export(model, Path(config.run.dir) / AUTOENCODER_EXPORT)
    return model.eval().requires_grad_(False)


def load_velocity(config: Config) -> VelocityNetwork:
    """The generative prior, trainable: the base's file or the result of this run's second stage."""
    if not config.base.transformer:
        model = build_velocity(config)
        load_export(model, Path(config.run.dir) / PRIOR_EXPORT)
        return model
    with torch.device("meta"):
        model = build_velocity(config)
    if not model.null:
        raise AlloSR2Error(f"base.transformer: expected the network.type of a base; got {config.network.type!r}")
    dtype = DTYPES[config.base.dtype]
    assign(model.adapted, read_transformer(config.base.transformer, dtype), config.base.transformer)
    model.compute_in(dtype)
    model.set_null(read_tensors(config.base.null) if config.base.null else {}, config.base.null)
    return model
