"""The networks a configuration names, fresh or filled: from the run's own stages, or from files of a base (FLUX.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from allosr2_core.bases.registry import assign, read_tensors, read_transformer
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks import codecs
from allosr2_core.networks.codecs import Codec
from allosr2_core.networks.registry import NullFlux, build_network
from allosr2_core.snr import SNRHead, SNRHeadParams

from ..config import Config
from ..loop.state import load_export

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CODEC_EXPORT, PRIOR_EXPORT = "autoencoder/autoencoder.safetensors", "prior/velocity.safetensors"
"""Where the first two stages leave their results in a run folder."""
HEAD_LEVELS = 3
"""How often the SNR head halves the resolution."""


def codec_spec(config: Config) -> dict[str, Any]:
    """The configured autoencoder as a checkpoint describes it."""
    return {"type": config.codec.type, **config.codec.params}


def build_codec(config: Config) -> Codec:
    """An autoencoder of the configured shape with fresh weights."""
    return codecs.build_codec(codecs.codec_params(codec_spec(config), "codec"))


def latent_channels(config: Config) -> int:
    """Channels of a latent."""
    return codecs.channels_and_downscale(codecs.codec_params(codec_spec(config), "codec"))[0]


def network_spec(config: Config) -> dict[str, Any]:
    """The configured velocity network, on the codec's latents, as a checkpoint describes it."""
    return {"type": config.network.type, "latent_channels": latent_channels(config), **config.network.params}


def build_velocity(config: Config) -> nn.Module:
    """A velocity network of the configured type, on the codec's latents, with fresh weights."""
    return build_network(network_spec(config))


def build_snr_head(config: Config) -> SNRHead:
    """An SNR head of the configured width, on the codec's latents, with fresh weights."""
    return SNRHead(SNRHeadParams(latent_channels(config), config.head.hidden, HEAD_LEVELS))


def load_codec(config: Config) -> Codec:
    """The autoencoder to build on, frozen: the base's file or the result of this run's first stage."""
    base = config.base.autoencoder
    if base:
        with torch.device("meta"):
            model = build_codec(config)
        assign(model, read_tensors(base), base)
    else:
        model = build_codec(config)
        load_export(model, Path(config.run.dir) / CODEC_EXPORT)
    return model.eval().requires_grad_(False)


def load_velocity(config: Config) -> nn.Module:
    """The generative prior, trainable: the base's file or the result of this run's second stage."""
    if not config.base.transformer:
        model = build_velocity(config)
        load_export(model, Path(config.run.dir) / PRIOR_EXPORT)
        return model
    with torch.device("meta"):
        model = build_velocity(config)
    if not isinstance(model, NullFlux):
        raise AlloSR2Error(f"base.transformer: expected network.type 'flux' for a base; got {config.network.type!r}")
    dtype = DTYPES.get(config.base.dtype)
    if dtype is None:
        raise AlloSR2Error(f"base.dtype: expected one of {', '.join(DTYPES)}; got {config.base.dtype!r}")
    flux = model.velocity.flux
    assign(flux, read_transformer(config.base.transformer, dtype), config.base.transformer)
    model.velocity.compute_dtype = dtype
    null = read_tensors(config.base.null) if config.base.null else {}
    for name, fresh in (("context", model.null_context), ("pooled", model.null_pooled)):
        value = null.get(name, torch.zeros(fresh.shape)).float()
        if value.ndim != fresh.ndim or value.shape[-1] != fresh.shape[-1] or value.shape[0] != 1:
            raise AlloSR2Error(
                f"{config.base.null}: {name}: expected a shape like {tuple(fresh.shape)}; got {tuple(value.shape)}"
            )
        setattr(model, f"null_{name}", nn.Parameter(value))
    return model
