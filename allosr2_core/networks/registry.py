"""The velocity networks by the `type` that a checkpoint gives its network. A kind of network is one file here.

    @network("unet", UNetParams)
    class VelocityUNet(VelocityNetwork): ...

registers it; every file of this folder is loaded with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from ..errors import AlloSR2Error, shown


class NetworkParams(Protocol):
    """The parameters of a kind of network, a frozen dataclass, and what follows from them."""

    @property
    def latent_channels(self) -> int:
        """Channels of z, in and out."""
        ...

    @property
    def stride(self) -> int:
        """Latent cells along one side of what it sees as one."""
        ...

    @property
    def radius(self) -> int | None:
        """How far, in latent cells, a velocity depends on z; None for the whole picture."""
        ...

    @classmethod
    def read(cls, spec: Mapping[str, Any], where: str) -> Self:
        """From a checkpoint's table without its `type`; AlloSR2Error that begins with `where`."""
        ...


class VelocityNetwork(nn.Module):
    """velocity(z_BCHW, t_B, cond=None) -> v_BCHW, and what training and adapters ask of it.

    What is answered here suits a network without text that adapters leave alone.
    """

    @property
    def adapted(self) -> nn.Module:
        """The part whose layers an adapter names and the files of a base hold: a transformer inside its wrapper."""
        return self

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """What gradient checkpointing computes again as a whole, and whose weights processes may share."""
        return ()

    @property
    def null(self) -> Mapping[str, Tensor]:
        """The empty prompt it is told where no other is given, by the names of an adapter's file; {} if it takes none.

        "context" is [1, T, D], "pooled" [1, V].
        """
        return {}

    def set_null(self, null: Mapping[str, Tensor], where: str) -> None:
        """Tell it another empty prompt; what is not given is zeros, as one token.

        AlloSR2Error that begins with `where` for a prompt that does not fit.
        """
        raise AlloSR2Error(f"{where}: expected a network that is told a prompt; {type(self).__name__} is not")

    def features(self, z: Tensor, t: Tensor) -> list[Tensor]:
        """Maps [B, C, h, w] out of the network at a state z [B, C, H, W] and times [B], for a discriminator to look at.

        AlloSR2Error from a network that has none.
        """
        raise AlloSR2Error(f"expected a network that shows its features; {type(self).__name__} does not")

    def compute_in(self, dtype: torch.dtype) -> None:
        """Compute in this type, with weights converted once; z and v keep theirs. What is answered here: in fp32."""

    def set_gradient_checkpointing(self, on: bool) -> None:
        """Whether the backward pass computes blocks again instead of keeping what is inside; nothing without blocks."""


@dataclass(frozen=True)
class NetworkKind:
    """A registered kind of network."""

    params: type[NetworkParams]
    build: Callable[[Any], VelocityNetwork]
    """From its parameters, with fresh weights."""


NETWORKS: dict[str, NetworkKind] = {}
"""By the `type` that a checkpoint gives its network."""

N = TypeVar("N", bound=VelocityNetwork)


def network(name: str, params: type[NetworkParams]) -> Callable[[type[N]], type[N]]:
    """Register a class whose only argument is its parameters. ValueError where the name is taken."""

    def register(kind: type[N]) -> type[N]:
        if name in NETWORKS:
            raise ValueError(f"expected a new name for a network; {name!r} is taken")
        NETWORKS[name] = NetworkKind(params, kind)
        return kind

    return register


def network_params(spec: Mapping[str, Any]) -> NetworkParams:
    """The parameters in {"type": ..., **parameters of its kind}.

    Raises AlloSR2Error on an unknown type and on unknown, missing or ill-fitting parameters.
    """
    return _read(spec)[1]


def build_network(spec: Mapping[str, Any]) -> VelocityNetwork:
    """A network with fresh weights from what `network_params` reads; raises as that does."""
    kind, params = _read(spec)
    return kind.build(params)


def _read(spec: Mapping[str, Any]) -> tuple[NetworkKind, NetworkParams]:
    if not isinstance(spec, Mapping):
        raise AlloSR2Error(f"network: expected a table; got {shown(spec)}")
    name = spec.get("type")
    if not isinstance(name, str) or name not in NETWORKS:
        others = "those of other bases run on a MODEL of the host only"
        raise AlloSR2Error(f"network: expected type to be one of {', '.join(NETWORKS)}; got {shown(name)} ({others})")
    kind = NETWORKS[name]
    return kind, kind.params.read({key: value for key, value in spec.items() if key != "type"}, "network")
