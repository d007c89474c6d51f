"""The networks a configuration names, fresh or filled: from the run's own stages, or from files of a base (FLUX.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from allosr2_core.autoencoder import Autoencoder, AutoencoderParams
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks import NullFlux, build_network, strict
from allosr2_core.patch_autoencoder import PatchAutoencoder, PatchAutoencoderParams
from allosr2_core.weight_diff import listed

from .config import Config
from .state import load_export

CODECS = {"patch": (PatchAutoencoder, PatchAutoencoderParams), "kl": (Autoencoder, AutoencoderParams)}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CODEC_EXPORT, PRIOR_EXPORT = "autoencoder/autoencoder.safetensors", "prior/velocity.safetensors"
"""Where the first two stages leave their results in a run folder."""

Codec = PatchAutoencoder | Autoencoder


def codec_params(config: Config) -> PatchAutoencoderParams | AutoencoderParams:
    """The configured autoencoder's parameters."""
    kind = config.codec.type
    if kind not in CODECS:
        raise AlloSR2Error(f"codec.type: expected one of {', '.join(CODECS)}; got {kind!r}")
    return strict(CODECS[kind][1], config.codec.params, "codec.params")


def build_codec(config: Config) -> Codec:
    """An autoencoder of the configured shape with fresh weights."""
    params = codec_params(config)
    return CODECS[config.codec.type][0](params)


def latent_channels(config: Config) -> int:
    """Channels of a latent."""
    params = codec_params(config)
    return params.z_channels if isinstance(params, AutoencoderParams) else params.latent_channels


def build_velocity(config: Config) -> nn.Module:
    """A velocity network of the configured type, on the codec's latents, with fresh weights."""
    network = config.network
    return build_network({"type": network.type, "latent_channels": latent_channels(config), **network.params})


def load_codec(config: Config) -> Codec:
    """The autoencoder to build on, frozen: the base's file or the result of this run's first stage."""
    base = config.base.autoencoder
    if base:
        with torch.device("meta"):
            model = build_codec(config)
        _assign(model, _read(Path(base)), base)
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
    _assign(flux, {k: v.to(dtype) for k, v in _read(Path(config.base.transformer)).items()}, config.base.transformer)
    model.velocity.compute_dtype = dtype
    null = _read(Path(config.base.null)) if config.base.null else {}
    for name, fresh in (("context", model.null_context), ("pooled", model.null_pooled)):
        value = null.get(name, torch.zeros(fresh.shape)).float()
        if value.ndim != fresh.ndim or value.shape[-1] != fresh.shape[-1] or value.shape[0] != 1:
            raise AlloSR2Error(
                f"{config.base.null}: {name}: expected a shape like {tuple(fresh.shape)}; got {tuple(value.shape)}"
            )
        setattr(model, f"null_{name}", nn.Parameter(value))
    return model


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise AlloSR2Error(f"expected a safetensors file at {path}; {error}") from error


def _assign(model: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Give a model made on the meta device its weights, all of them and no others."""
    expected: dict[str, Any] = {name: tuple(value.shape) for name, value in model.state_dict().items()}
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
