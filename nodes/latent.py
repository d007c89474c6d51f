"""What the upscaler's LATENT carries besides its samples, so that the decode can finish the picture."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.upscale import Prepared

KEY = "allosr2"


def latent(samples: Tensor, prepared: Prepared) -> dict[str, Any]:
    """Raw latents [B, C, h, w] with crop, alpha channel and colour reference. Core nodes ignore the second entry."""
    extras = {
        "height": prepared.height,
        "width": prepared.width,
        "alpha": prepared.alpha,
        "reference": prepared.reference,
        "padded": tuple(prepared.pixels.shape[1:3]),
    }
    return {"samples": samples, KEY: extras}


def check_unchanged(latent: dict[str, Any], downscale: int) -> None:
    """AlloSR2Error when our latents were resized, cropped or taken out of the batch since they were made."""
    samples, extras = latent["samples"], latent[KEY]
    height, width = extras["padded"]
    expected = (extras["reference"].shape[0], height // downscale, width // downscale)
    found = (samples.shape[0], *samples.shape[-2:])
    if found != expected:
        raise AlloSR2Error(
            f"expected latents (batch, height, width) {expected} as AlloSR2 One-Step Upscale made them; got {found}. "
            "Decode first and resize the picture, or use VAE Decode"
        )


def prepared_of(latent: dict[str, Any], pixels: Tensor) -> Prepared:
    """What `finish` needs, for the decoded and still padded pixels [B, H', W', 3]."""
    extras = latent[KEY]
    return Prepared(
        pixels=pixels,
        height=extras["height"],
        width=extras["width"],
        alpha=extras["alpha"],
        reference=extras["reference"],
    )
