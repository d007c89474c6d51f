"""The model families by the `type` that a checkpoint gives its network, their published members, and their files.

A family is one file here, which registers itself. Its adapters then run on the MODEL a host has loaded. To train them,
and to run them without a host, its transformer is a kind of network of the same name (`networks/registry.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..adapters.targets import Shape
from ..adapters.weight_diff import listed
from ..errors import AlloSR2Error
from ..networks.autoencoders import Autoencoder, autoencoder_params, build_autoencoder
from ..networks.registry import NETWORKS, VelocityNetwork, build_network
from ..safetensors_file import opened


@dataclass(frozen=True)
class Base:
    """A published model that adapters are made for."""

    title: str
    """As its makers call it."""
    network: Mapping[str, Any]
    """Its transformer, as `networks.build_network` takes it. The guidance is a checkpoint's own choice: 1.0 here."""
    autoencoder: Mapping[str, Any]
    """Its VAE, as `autoencoders.autoencoder_params` takes it."""
    license: str
    """What its licence makes of adapters trained on it."""


@dataclass(frozen=True)
class Family:
    """Models that share one architecture and one latent space. All are flows: v = e - z_0, x_0 = z_t - t v."""

    title: str
    latent_channels: int
    latent_downscale: int
    """Pixels along one side of a latent cell."""
    latent_scale: float
    latent_shift: float
    """scaled latent = (raw - shift) * scale."""
    token_cells: int
    """Latent cells along one side of a token."""
    pooled: bool
    """Whether the transformer takes a pooled text vector besides the text's tokens; its empty prompt has one then."""
    guidance: bool
    """Whether it has members that take a guidance strength (FLUX.1-dev, FLUX.2-dev; not schnell, not klein)."""
    marks: tuple[str, ...]
    """Parameters that together only this family's transformer has, each in one of its spellings."""
    spellings: tuple[tuple[str, ...], ...] = ()
    """Ends of parameters' names that files and hosts have in several ways: the files' own first."""
    architecture: Callable[[Mapping[str, Shape]], dict[str, object]] | None = None
    """What the shapes of a transformer's parameters tell, as a checkpoint states it; None where it states none of it.

    AlloSR2Error when a parameter that tells is not there."""
    describe: Callable[[Mapping[str, Any]], str] | None = None
    """The name of a network that is none of `members`; by default its type."""
    members: Mapping[str, Base] = field(default_factory=dict)
    """By the name that checkpoints give under `base`."""


FAMILIES: dict[str, Family] = {}
"""By the `type` that a checkpoint gives its network."""
BASES: dict[str, Base] = {}
"""The members of all families, by the name that checkpoints give under `base`."""


def register(name: str, family: Family) -> None:
    """Make a family and its members known. ValueError where a name is taken."""
    taken = sorted({name} & FAMILIES.keys() | family.members.keys() & BASES.keys())
    if taken:
        raise ValueError(f"expected new names for a family and its members; taken: {', '.join(taken)}")
    FAMILIES[name] = family
    BASES.update(family.members)


def needs_host(name: object) -> bool:
    """Whether networks of this type are those of a family that only a host can build."""
    return name in FAMILIES and name not in NETWORKS


# --- what a model is --------------------------------------------------------------------------------------------------


def spellings(name: str) -> tuple[str, ...]:
    """The names that files and hosts have for one parameter, the files' first; just `name` for most."""
    for ends in (ends for family in FAMILIES.values() for ends in family.spellings):
        for end in ends:
            if name.endswith(end):
                return tuple(name.removesuffix(end) + other for other in ends)
    return (name,)


def recognise(shapes: Mapping[str, Shape]) -> str | None:
    """The family a transformer belongs to, by its parameters' names; None for another one."""
    return next((name for name in FAMILIES if not missing_marks(name, shapes)), None)


def missing_marks(family: str, shapes: Mapping[str, Shape]) -> list[str]:
    """The marks of a family that a transformer has in no spelling."""
    return [mark for mark in FAMILIES[family].marks if not any(name in shapes for name in spellings(mark))]


def base_name(network: Mapping[str, Any]) -> str:
    """The name of a base's network in BASES, or a description of one that is not there."""
    for name, base in BASES.items():
        if _architecture(base.network) == _architecture(network):
            return name
    kind = str(network.get("type"))
    describe = FAMILIES[kind].describe if kind in FAMILIES else None
    return kind if describe is None else describe(network)


def title_of(name: str) -> str:
    """The title of a base by its name, or the name of one that is not in BASES."""
    return BASES[name].title if name in BASES else name


def _architecture(network: Mapping[str, Any]) -> dict[str, Any]:
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in network.items()}
    return {key: value for key, value in lists.items() if key != "guidance"}


# --- its files --------------------------------------------------------------------------------------------------------


class Described(Protocol):
    """What a checkpoint's configuration says of the base it is for."""

    @property
    def base(self) -> str: ...

    @property
    def network(self) -> Mapping[str, Any]: ...

    @property
    def autoencoder(self) -> Mapping[str, Any]: ...


def read_base(
    config: Described,
    transformer: str | os.PathLike[str],
    autoencoder: str | os.PathLike[str],
    dtype: torch.dtype = torch.float32,
) -> tuple[VelocityNetwork, Autoencoder]:
    """The network, its transformer in `dtype`, and the VAE (fp32) that an adapter with this configuration is for.

    Both frozen; the empty prompt is zeros. Raises AlloSR2Error when a file is no safetensors file or holds other
    tensors than those of the base.
    """
    with torch.device("meta"):
        network, vae = build_network(config.network), build_autoencoder(autoencoder_params(config.autoencoder))
    if not network.null:
        raise AlloSR2Error(f"expected an adapter for a base; got a checkpoint of {config.base}")
    named = {spellings(name)[0]: shape for name, shape in read_shapes(transformer).items()}
    check_shapes(network.adapted, named, str(transformer))
    check_shapes(vae, read_shapes(autoencoder), str(autoencoder))
    assign(network.adapted, read_transformer(transformer, dtype), str(transformer))
    network.compute_in(dtype)
    network.set_null({}, config.base)
    assign(vae, {name: value.float() for name, value in read_tensors(autoencoder).items()}, str(autoencoder))
    return network.eval().requires_grad_(False), vae.eval().requires_grad_(False)


def read_shapes(path: str | os.PathLike[str]) -> dict[str, Shape]:
    """The shapes of a safetensors file's tensors, from its header; AlloSR2Error as `read_tensors`."""
    with opened(path, str(Path(path))) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file; AlloSR2Error names the path when it is none."""
    with opened(path, str(Path(path))) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def read_transformer(path: str | os.PathLike[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """A transformer's tensors under the names of its makers' files; hosts save some under others."""
    return {spellings(name)[0]: value.to(dtype) for name, value in read_tensors(path).items()}


def assign(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a model made on the meta device its weights, all of them and no others; AlloSR2Error says what differs."""
    check_shapes(model, {name: tuple(value.shape) for name, value in tensors.items()}, where)
    model.load_state_dict(tensors, assign=True)


def check_shapes(model: nn.Module, found: Mapping[str, Shape], where: str) -> None:
    """AlloSR2Error, which begins with `where` and says what differs, unless a model's tensors have these shapes."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
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
