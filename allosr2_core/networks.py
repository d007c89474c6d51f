"""Which velocity network a checkpoint names, behind one protocol: velocity(z_BCHW, t_B) -> v_BCHW."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .errors import AlloSR2Error
from .transformer import Flux, FluxConditioning, FluxParams, FluxVelocity
from .unet import UNetParams, VelocityUNet

NETWORKS = ("unet", "flux")


class NullFlux(nn.Module):
    """A FLUX-class velocity network with one learned null token in the place of the text."""

    def __init__(self, params: FluxParams) -> None:
        super().__init__()
        flux = Flux(params)
        flux.init_for_training()
        self.velocity = FluxVelocity(flux)
        self.null_context = nn.Parameter(torch.zeros(1, 1, params.context_in_dim))
        self.null_pooled = nn.Parameter(torch.zeros(1, params.vec_in_dim))

    def forward(self, z: Tensor, t: Tensor, cond: FluxConditioning | None = None) -> Tensor:
        if cond is None:
            cond = FluxConditioning(self.null_context, self.null_pooled, None)
        return self.velocity(z, t.expand(z.shape[0]), cond)


def build_network(spec: Mapping[str, Any]) -> nn.Module:
    """A network with fresh weights from {"type": ..., "latent_channels": C, **parameters of its class}.

    Raises AlloSR2Error on an unknown type and on unknown, missing or ill-fitting parameters.
    """
    values = dict(spec)
    kind, channels = values.pop("type", None), values.get("latent_channels")
    if kind == "unet":
        return VelocityUNet(strict(UNetParams, values, "network"))
    if kind == "flux":
        values.pop("latent_channels", None)
        tokens = {"in_channels": 4 * (channels or 0), "out_channels": 4 * (channels or 0)}
        return NullFlux(strict(FluxParams, values | tokens, "network"))
    raise AlloSR2Error(f"network: expected type to be one of {NETWORKS}; got {kind!r}")


def strict(kind: type, values: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401 - an instance of `kind`
    """Build a dataclass from a mapping that must have exactly its fields."""
    names = {field.name for field in dataclasses.fields(kind)}
    unknown, missing = sorted(set(values) - names), sorted(names - set(values))
    if unknown or missing:
        raise AlloSR2Error(f"{where}: expected the fields {sorted(names)}; unknown {unknown}, missing {missing}")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise AlloSR2Error(f"{where}: {error}") from error
