"""What the upscaler's LATENT carries besides its samples, so that the decode can finish the picture."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.finish import Target

KEY = "allosr2"


def latent(samples: Tensor, target: Target) -> dict[str, Any]:
    """Raw latents [B, C, h, w], and what they are to become. Core nodes ignore the second entry."""
    return {"samples": samples, KEY: target}


def target_of(latent: dict[str, Any], downscale: int) -> Target:
    """What `latent` was given. AlloSR2Error when the samples were resized, cropped or taken out of the batch since."""
    samples, target = latent["samples"], latent[KEY]
    layout = target.layout
    expected = (target.source.shape[0], layout.padded_height // downscale, layout.padded_width // downscale)
    found = (samples.shape[0], *samples.shape[-2:])
    if found != expected:
        raise AlloSR2Error(
            f"expected latents (batch, height, width) {expected} as AlloSR2 One-Step Upscale made them; got {found}. "
            "Decode first and resize the picture, or use VAE Decode"
        )
    return target
