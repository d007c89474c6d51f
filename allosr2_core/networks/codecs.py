"""Which autoencoder a checkpoint names, and its two functions on scaled latents, the ones the flow runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..errors import AlloSR2Error
from ..tiling.kl_strips import streamed_decode, streamed_encode
from .kl_autoencoder import Autoencoder, AutoencoderParams
from .patch_autoencoder import PatchAutoencoder, PatchAutoencoderParams
from .registry import strict

Codec = PatchAutoencoder | Autoencoder
_KINDS = {"patch": (PatchAutoencoder, PatchAutoencoderParams), "kl": (Autoencoder, AutoencoderParams)}
CODECS = tuple(_KINDS)
KL_BUDGET = 2.0**31
"""Bytes that the feature maps of a KL autoencoder may take at a time."""


def codec_params(spec: Mapping[str, Any], where: str = "autoencoder") -> PatchAutoencoderParams | AutoencoderParams:
    """The parameters in {"type": "patch" or "kl", **parameters}; files from before there was a choice name no type.

    Raises AlloSR2Error on an unknown type and on unknown, missing or ill-fitting parameters.
    """
    if not isinstance(spec, Mapping):
        raise AlloSR2Error(f"{where}: expected a table of fields; got {spec!r}")
    values = dict(spec)
    kind = values.pop("type", "patch")
    if kind not in _KINDS:
        raise AlloSR2Error(f"{where}.type: expected one of {', '.join(CODECS)}; got {kind!r}")
    return strict(_KINDS[kind][1], values, where)


def build_codec(params: PatchAutoencoderParams | AutoencoderParams) -> Codec:
    """An autoencoder with fresh weights."""
    return PatchAutoencoder(params) if isinstance(params, PatchAutoencoderParams) else Autoencoder(params)


def channels_and_downscale(params: PatchAutoencoderParams | AutoencoderParams) -> tuple[int, int]:
    """Channels of a latent, and pixels along one side of a latent cell."""
    if isinstance(params, PatchAutoencoderParams):
        return params.latent_channels, params.patch
    return params.z_channels, params.downscale


def scaled_functions(codec: Codec, scale: float, shift: float) -> tuple[Callable[[Tensor], Tensor], ...]:
    """encode and decode: pixels [1, 3, H, W] in [-1, 1] to scaled latents, (raw - shift) * scale, and back.

    A KL autoencoder sees the whole picture, in strips where it is large.
    """
    if not isinstance(codec, Autoencoder):
        return lambda pixels: (codec.encode(pixels) - shift) * scale, lambda z: codec.decode(z / scale + shift)

    def encode(pixels: Tensor) -> Tensor:
        return (streamed_encode(codec.encoder, pixels, KL_BUDGET).chunk(2, dim=1)[0] - shift) * scale

    return encode, lambda z: streamed_decode(codec.decoder, z / scale + shift, KL_BUDGET)
