"""An adapter on the MODEL and VAE the user has connected: patches on clones of both, what came in stays as it is."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import Tensor, zeros_like

from ...allosr2_core.bases.registry import title_of
from ...allosr2_core.checkpoint.format import LORA_ENCODER, LORA_FLOW, Checkpoint
from ...allosr2_core.errors import AlloSR2Error
from .fit import ATTACHMENT, check_model, check_vae
from .patches import add_patches_strictly
from .vae import patch_encoder

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.model_sampling import CONST
    from comfy.sd import VAE
    from comfy.supported_models_base import BASE


def apply_adapter(
    checkpoint: Checkpoint, name: str, model: ModelPatcher | None, vae: VAE | None, strength: float
) -> tuple[ModelPatcher, VAE]:
    """Clones of MODEL and VAE with the adapter's patches at `strength`.

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
    check_model(checkpoint, name, model)
    check_vae(checkpoint, name, vae)
    tuned = model.clone()
    add_patches_strictly(tuned, checkpoint.group(LORA_FLOW), strength)
    if checkpoint.config.init == "raw":
        sampling = tuned.get_model_object("model_sampling")
        tuned.add_object_patch("model_sampling", _raw_start(sampling, tuned.model.model_config))
    encoder = patch_encoder(vae, checkpoint.group(LORA_ENCODER), strength)
    for patcher in (tuned, encoder.patcher):
        patcher.set_attachments(ATTACHMENT, name)
    return tuned, encoder


def _raw_start(sampling: CONST, model_config: BASE) -> CONST:
    """The same sampling for a stock sampler, but starting at the latent itself instead of (1 - t) times it.

    The host scales a latent as `init="aligned"` asks for; `init="raw"` starts from z_L as it is. A class of its own,
    made from the model's configuration, is how the host's own ModelSampling nodes change a sampling too.
    """

    class RawStart(type(sampling)):
        def noise_scaling(
            self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False
        ) -> Tensor:
            return latent_image + super().noise_scaling(sigma, noise, zeros_like(latent_image), max_denoise)

    changed = RawStart(model_config)
    # the shift that the user set: samplings have no common way to be asked for it, so their whole state is taken over
    vars(changed).update(vars(copy.deepcopy(sampling)))
    return changed
