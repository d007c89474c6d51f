"""Which autoencoder a checkpoint names, and its two functions on scaled latents, the ones the flow runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .autoencoder import Autoencoder, AutoencoderParams
from .errors import AlloSR2Error
from .networks import strict
from .patch_autoencoder import PatchAutoencoder, PatchAutoencoderParams

Codec = PatchAutoencoder | Autoencoder
_KINDS = {"patch": (PatchAutoencoder, PatchAutoencoderParams), "kl": (Autoencoder, AutoencoderParams)}
CODECS = tuple(_KINDS)


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
    """encode and decode: pixels [B, 3, H, W] in [-1, 1] to scaled latents, (raw - shift) * scale, and back."""
    if isinstance(codec, Autoencoder):  # scales by itself
        return codec.encode, codec.decode
    return lambda pixels: (codec.encode(pixels) - shift) * scale, lambda z: codec.decode(z / scale + shift)
