"""The autoencoders by the `type` that a checkpoint gives its own. A kind of autoencoder is one file here.

    @autoencoder("patch", PatchAutoencoderParams)
    class PatchAutoencoder(Autoencoder): ...

registers it; every file of this folder is loaded with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..dataclass_reader import read_dataclass
from ..errors import AlloSR2Error, shown


class AutoencoderParams(Protocol):
    """The parameters of a kind of autoencoder, a frozen dataclass, and what follows from them."""

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        ...

    @property
    def downscale(self) -> int:
        """Pixels along one side of a latent cell."""
        ...

    @property
    def latent_format(self) -> tuple[float, float] | None:
        """Its own scale and shift, scaled latent = (raw - shift) * scale; None where a checkpoint may choose them."""
        ...

    @property
    def encoder_radius(self) -> int | None:
        """Context, in latent cells, that an encoded cell depends on; None for the whole picture."""
        ...

    @property
    def decoder_radius(self) -> int | None:
        """Context, in latent cells, that a decoded cell depends on; None for the whole picture."""
        ...


class Autoencoder(nn.Module):
    """Pixels [B, 3, H, W] in [-1, 1] to latents [B, C, h, w] and back. What is answered here suits a small one."""

    encoder: Any
    decoder: Any
    """Modules; each kind has its own."""

    def __init__(self, params: AutoencoderParams) -> None:
        super().__init__()
        self.params: Any = params

    @property
    def downscale(self) -> int:
        """Pixels along one side of a latent cell."""
        return self.params.downscale

    @property
    def encoder_radius(self) -> int | None:
        """See `AutoencoderParams`."""
        return self.params.encoder_radius

    @property
    def decoder_radius(self) -> int | None:
        """See `AutoencoderParams`."""
        return self.params.decoder_radius

    @property
    def adapted(self) -> nn.Module:
        """The part whose layers an adapter names."""
        return self.encoder

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """What gradient checkpointing computes again as a whole."""
        return ()

    def encode(self, x: Tensor) -> Tensor:
        """Pixels -> latents in the format the autoencoder was trained in."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Latents in that format -> pixels, about [-1, 1] (not clamped)."""
        raise NotImplementedError

    def compute_in(self, dtype: torch.dtype) -> None:
        """Compute in this type with weights converted once; pixels and latents keep theirs. Answered here: in fp32."""

    def scaled_encode(self, pixels: Tensor, scale: float, shift: float) -> Tensor:
        """Pixels [1, 3, H, W] -> latents [1, C, h, w] as the flow runs on them, (raw - shift) * scale."""
        return (self.encode(pixels) - shift) * scale

    def scaled_decode(self, z: Tensor, scale: float, shift: float) -> Tensor:
        """And back."""
        return self.decode(z / scale + shift)

    def set_gradient_checkpointing(self, on: bool) -> None:
        """Whether the backward pass computes blocks again instead of keeping what is inside; nothing without blocks."""


@dataclass(frozen=True)
class AutoencoderKind:
    """A registered kind of autoencoder."""

    params: type[AutoencoderParams]
    build: Callable[[Any], Autoencoder]
    """From its parameters, with fresh weights."""


AUTOENCODERS: dict[str, AutoencoderKind] = {}
"""By the `type` that a checkpoint gives its autoencoder."""

A = TypeVar("A", bound=Autoencoder)


def autoencoder(name: str, params: type[AutoencoderParams]) -> Callable[[type[A]], type[A]]:
    """Register a class whose only argument is its parameters. ValueError where the name is taken."""

    def register(kind: type[A]) -> type[A]:
        if name in AUTOENCODERS:
            raise ValueError(f"expected a new name for an autoencoder; {name!r} is taken")
        AUTOENCODERS[name] = AutoencoderKind(params, kind)
        return kind

    return register


def autoencoder_params(spec: Mapping[str, Any], where: str = "autoencoder") -> AutoencoderParams:
    """The parameters in {"type": ..., **parameters of its kind}; older files name no type and mean "patch".

    Raises AlloSR2Error on an unknown type and on unknown, missing or ill-fitting parameters.
    """
    if not isinstance(spec, Mapping):
        raise AlloSR2Error(f"{where}: expected a table; got {shown(spec)}")
    name = spec.get("type", "patch")
    if not isinstance(name, str) or name not in AUTOENCODERS:
        raise AlloSR2Error(f"{where}.type: expected one of {', '.join(AUTOENCODERS)}; got {shown(name)}")
    values = {key: value for key, value in spec.items() if key != "type"}
    return read_dataclass(AUTOENCODERS[name].params, values, where)


def build_autoencoder(params: AutoencoderParams) -> Autoencoder:
    """An autoencoder with fresh weights."""
    (build,) = (kind.build for kind in AUTOENCODERS.values() if kind.params is type(params))
    return build(params)
