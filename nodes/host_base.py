"""An adapter on the MODEL and VAE the user has connected: recognised by shapes, patched on clones, counted."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import comfy.model_sampling
import torch
from torch import Tensor

from ..allosr2_core.adapters.weight_diff import listed
from ..allosr2_core.bases.registry import BASES, base_name, title_of
from ..allosr2_core.checkpoint.format import LORA_ENCODER, LORA_FLOW, Checkpoint
from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.networks.families import FAMILIES, flux_architecture, missing_marks, recognise
from . import host
from .host_objects import add_difference

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE


def on_base(
    checkpoint: Checkpoint, name: str, model: ModelPatcher | None, vae: VAE | None, strength: float
) -> tuple[ModelPatcher, VAE]:
    """Clones of MODEL and VAE with the adapter's patches at `strength`; what came in stays as it is.

    Raises AlloSR2Error when one is missing or is not of the base that the adapter was trained on.
    """
    base = title_of(checkpoint.config.base)
    if model is None or vae is None:
        missing = [
            f"{socket!r} ({loader})"
            for socket, loader, value in (("model", "Load Diffusion Model", model), ("vae", "Load VAE", vae))
            if value is None
        ]
        raise AlloSR2Error(f"{name!r} is an adapter for {base}: connect the loader's input {' and '.join(missing)}")
    _check_model(checkpoint, name, model)
    _check_vae(checkpoint, name, vae)
    tuned = model.clone()
    add_difference(tuned, checkpoint.group(LORA_FLOW), strength)
    if checkpoint.config.init == "raw":
        tuned.add_object_patch("model_sampling", _raw_start(tuned.get_model_object("model_sampling")))
    encoder = copy.copy(vae)
    encoder.patcher = vae.patcher.clone()
    add_difference(encoder.patcher, checkpoint.group(LORA_ENCODER), strength)
    for patcher in (tuned, encoder.patcher):
        patcher.set_attachments(host.ATTACHMENT, name)
    return tuned, encoder


def _check_model(checkpoint: Checkpoint, name: str, model: ModelPatcher) -> None:
    network, shapes = checkpoint.config.network, _shapes(model)
    wanted, family = network.get("type"), recognise(shapes)
    if family != wanted or not isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST):
        found = "a model of another family" if family is None else f"a {FAMILIES[family].title} model"
        missing = missing_marks(wanted, shapes) if family is None and wanted in FAMILIES else []
        lacking = f"; it has no {listed(missing)}" if missing else ""  # tells a renamed parameter from another model
        raise AlloSR2Error(
            f"{name!r} was trained on {title_of(checkpoint.config.base)}; got {found} "
            f"({type(model.model).__name__}) on 'model'{lacking}"
        )
    if wanted != "flux":
        return
    found_network = flux_architecture(shapes)
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


def _check_vae(checkpoint: Checkpoint, name: str, vae: VAE) -> None:
    config = checkpoint.config
    expected = (config.latent_channels, config.latent_downscale)
    found = (vae.latent_channels, vae.spacial_compression_encode())
    if found != expected or not hasattr(vae.first_stage_model, "encoder"):
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


def _raw_start(sampling: comfy.model_sampling.CONST) -> comfy.model_sampling.CONST:
    """The same sampling for a stock sampler, but starting at the latent itself instead of (1 - t) times it.

    The host scales a latent as `init="aligned"` asks for; `init="raw"` starts from z_L as it is.
    """

    class RawStart(type(sampling)):
        def noise_scaling(
            self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False
        ) -> Tensor:
            return latent_image + super().noise_scaling(sigma, noise, torch.zeros_like(latent_image), max_denoise)

    changed = copy.deepcopy(sampling)
    changed.__class__ = RawStart
    return changed
