"""Which velocity network a checkpoint names, behind one protocol: velocity(z_BCHW, t_B) -> v_BCHW."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AlloSR2Error
from .families import FAMILIES
from .flux import Flux, FluxConditioning, FluxParams, FluxVelocity
from .unet import UNetParams, VelocityUNet

NETWORKS = ("unet", "flux")
HOST_NETWORKS = tuple(name for name, family in FAMILIES.items() if not family.in_core)
"""Velocity networks that only a host can build; adapters for them run on the MODEL the user connects."""


class NullFlux(nn.Module):
    """A FLUX-class velocity network that sees no text: a null conditioning of its own, by default one token.

    Args:
        params: the transformer.
        guidance: strength told to a transformer with a guidance embedding, None for one without.
    """

    def __init__(self, params: FluxParams, guidance: float | None) -> None:
        super().__init__()
        if (guidance is not None) != params.guidance_embed:
            wanted = "a number" if params.guidance_embed else "none (guidance_embed is false)"
            raise AlloSR2Error(f"network: guidance: expected {wanted}; got {guidance!r}")
        flux = Flux(params)
        flux.init_for_training()
        self.guidance = guidance
        self.velocity = FluxVelocity(flux)
        self.null_context = nn.Parameter(torch.zeros(1, 1, params.context_in_dim))
        self.null_pooled = nn.Parameter(torch.zeros(1, params.vec_in_dim))

    def forward(self, z: Tensor, t: Tensor, cond: FluxConditioning | None = None) -> Tensor:
        if cond is None:
            guidance_1 = None if self.guidance is None else torch.tensor([self.guidance], device=z.device)
            cond = FluxConditioning(self.null_context, self.null_pooled, guidance_1)
        return self.velocity(z, t.expand(z.shape[0]), cond)


def build_network(spec: Mapping[str, Any]) -> nn.Module:
    """A network with fresh weights from {"type": ..., "latent_channels": C, **parameters of its class}.

    Raises AlloSR2Error on an unknown type and on unknown, missing or ill-fitting parameters.
    """
    values = dict(_mapping(spec, "network"))
    kind = values.pop("type", None)
    if kind == "unet":
        values.setdefault("preconditioned", False)  # files from before there was a choice
        return VelocityUNet(strict(UNetParams, values, "network"))
    if kind == "flux":
        guidance = values.pop("guidance", None)
        if guidance is not None and not _fits(float, guidance):
            raise AlloSR2Error(f"network: guidance: expected a number; got {guidance!r}")
        return NullFlux(_flux_params(values), guidance)
    if kind in HOST_NETWORKS:
        raise AlloSR2Error(f"network: {kind!r} runs on a MODEL of the host only; expected one of {NETWORKS}")
    raise AlloSR2Error(f"network: expected type to be one of {NETWORKS}; got {kind!r}")


def _flux_params(values: dict[str, Any]) -> FluxParams:
    """A token is a 2 x 2 patch of latents, so its width follows from the latent channels and is not stated twice."""
    channels = values.pop("latent_channels", None)
    if type(channels) is not int or channels < 1:
        raise AlloSR2Error(f"network: latent_channels must be a positive integer, got {channels!r}")
    stated = sorted(values.keys() & {"in_channels", "out_channels"})
    if stated:
        raise AlloSR2Error(f"network: unknown {stated}; they follow from latent_channels")
    return strict(FluxParams, values | {"in_channels": 4 * channels, "out_channels": 4 * channels}, "network")


def strict(kind: type, values: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401 - an instance of `kind`
    """Build a dataclass from a mapping, as JSON gives it, that must have exactly its fields, each of its type.

    Raises AlloSR2Error with `where` and the names of the fields that are unknown, missing or of another type.
    """
    _mapping(values, where)
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    unknown, missing = sorted(set(values) - names), sorted(names - set(values))
    if unknown or missing:
        raise AlloSR2Error(f"{where}: expected the fields {sorted(names)}; unknown {unknown}, missing {missing}")
    wrong = [f"{name}: {values[name]!r}" for name in sorted(names) if not _fits(hints[name], values[name])]
    if wrong:
        raise AlloSR2Error(f"{where}: expected values of the documented types; got {', '.join(wrong)}")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise AlloSR2Error(f"{where}: {error}") from error


def _mapping(values: object, where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise AlloSR2Error(f"{where}: expected a table of fields; got {values!r}")
    return values


def _fits(hint: Any, value: object) -> bool:  # noqa: ANN401 - a type annotation
    """Whether a JSON value has an annotated type; annotations other than these are the dataclass's own business."""
    if hint is int or hint is bool or hint is str:
        return type(value) is hint
    if hint is float:
        return type(value) in (int, float)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(arguments[0], part) for part in value)
    return isinstance(value, Mapping) if origin is Mapping else True
