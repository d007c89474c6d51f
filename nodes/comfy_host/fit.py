"""Whether MODEL and VAE are those a checkpoint needs: the base of an adapter, and what is connected to a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comfy.model_sampling import CONST

from ...allosr2_core.adapters.weight_diff import listed
from ...allosr2_core.bases.registry import BASES, FAMILIES, base_name, missing_marks, recognise, title_of
from ...allosr2_core.errors import AlloSR2Error
from .vae import radii

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE

    from ...allosr2_core.checkpoint.format import Checkpoint
    from ..spec import Spec

ATTACHMENT = "allosr2"
"""Where the patcher of a MODEL or VAE with an adapter's patches carries the adapter's name."""


def check_fit(spec: Spec, vae: VAE, model: ModelPatcher | None = None) -> None:
    """AlloSR2Error unless the VAE (and the MODEL) are those the loader handed out with this checkpoint, or fit it."""
    expected = (spec.config.latent_channels, spec.config.latent_downscale)
    found = (vae.latent_channels, vae.spacial_compression_encode())
    if found != expected or (None not in radii(vae)) != spec.config.is_local_codec:
        raise AlloSR2Error(
            f"{spec.name!r} needs the VAE of the AlloSR2 Loader ({expected[0]} channels, 1/{expected[1]} size); "
            f"got a VAE with {found[0]} channels, 1/{found[1]} size"
        )
    if model is not None and model.model.latent_format.latent_channels != expected[0]:
        raise AlloSR2Error(
            f"{spec.name!r} needs the MODEL of the AlloSR2 Loader ({expected[0]} latent channels); "
            f"got one with {model.model.latent_format.latent_channels}"
        )
    for kind, patcher in (("VAE", vae.patcher), ("MODEL", model)):
        if spec.config.adapter and patcher is not None and patcher.get_attachment(ATTACHMENT) != spec.name:
            raise AlloSR2Error(f"{spec.name!r} needs the {kind} that the AlloSR2 Loader hands out; got another one")


def check_model(checkpoint: Checkpoint, name: str, model: ModelPatcher) -> None:
    """AlloSR2Error unless the MODEL is of the base that the adapter `name` was trained on, by its parameters."""
    network, shapes = checkpoint.config.network, _shapes(model)
    wanted, family = network.get("type"), recognise(shapes)
    is_flow = isinstance(model.get_model_object("model_sampling"), CONST)  # how the host itself tells flow models
    if family is None or family != wanted or not is_flow:
        found = "a model of another family" if family is None else f"a {FAMILIES[family].title} model"
        missing = missing_marks(wanted, shapes) if family is None and wanted in FAMILIES else []
        lacking = f"; it has no {listed(missing)}" if missing else ""  # tells a renamed parameter from another model
        raise AlloSR2Error(
            f"{name!r} was trained on {title_of(checkpoint.config.base)}; got {found} "
            f"({type(model.model).__name__}) on 'model'{lacking}"
        )
    architecture = FAMILIES[family].architecture
    if architecture is None:
        return
    found_network = architecture(shapes)
    other = {
        key: (network.get(key), value)
        for key, value in found_network.items()
        if key in network and network.get(key) != value
    }
    if other:
        differences = "; ".join(f"{key} {mine} there, {theirs} here" for key, (mine, theirs) in other.items())
        raise AlloSR2Error(
            f"{name!r} was trained on {title_of(checkpoint.config.base)}; got {_title(found_network)} on 'model': "
            f"{differences}"
        )


def check_vae(checkpoint: Checkpoint, name: str, vae: VAE) -> None:
    """AlloSR2Error unless the VAE has the latents of the adapter's base and an encoder that can be patched."""
    config = checkpoint.config
    expected = (config.latent_channels, config.latent_downscale)
    found = (vae.latent_channels, vae.spacial_compression_encode())
    if found != expected or "encoder" not in dict(vae.first_stage_model.named_children()):
        raise AlloSR2Error(
            f"{name!r} was trained with the VAE of {title_of(config.base)} ({expected[0]} channels, 1/{expected[1]} "
            f"size); got one with {found[0]} channels, 1/{found[1]} size "
            f"({type(vae.first_stage_model).__name__}) on 'vae'"
        )


def _shapes(model: ModelPatcher) -> dict[str, tuple[int, ...]]:
    """Shapes of the transformer's parameters as they are in use: a GGUF tensor states its unpacked shape."""
    return {name: tuple(value.shape) for name, value in model.model.diffusion_model.named_parameters()}


def _title(found: Mapping[str, object]) -> str:
    """The name of the known base that shapes tell of, or a description."""
    for base in BASES.values():
        if all(base.network.get(key) == value for key, value in found.items()):
            return base.title
    return base_name(dict(found))
