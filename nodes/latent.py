"""What the upscaler's LATENT carries besides its samples, so that the decode can finish the picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.finish import Target

KEY = "allosr2"
PROBES = 4096
"""Values of the latents that are kept, to tell whether another node changed them."""


def latent(samples: Tensor, target: Target) -> dict[str, Any]:
    """Raw latents [B, C, h, w], and what they are to become. Core nodes ignore and pass on the second entry."""
    return {"samples": samples, KEY: {"target": target, "probes": _probes(samples)}}


def target_of(latent: dict[str, Any], downscale: int) -> Target:
    """What `latent` was given. AlloSR2Error when another node resized, cropped, rebatched or changed the samples."""
    samples, target, probes = latent["samples"], latent[KEY]["target"], latent[KEY]["probes"]
    layout = target.layout
    expected = (target.source.shape[0], layout.padded_height // downscale, layout.padded_width // downscale)
    found = (samples.shape[0], *samples.shape[-2:])
    if found != expected:
        raise AlloSR2Error(
            f"expected latents (batch, height, width) {expected} as AlloSR2 One-Step Upscale made them; got {found}. "
            "Decode first and resize the picture, or use VAE Decode"
        )
    if not torch.equal(_probes(samples), probes):
        raise AlloSR2Error(
            "expected the latents as AlloSR2 One-Step Upscale made them; another node has changed them, and the "
            "picture they came from no longer tells what their colours, mask and alpha are. Use VAE Decode"
        )
    return target


def _probes(samples: Tensor) -> Tensor:
    flat = samples.flatten()
    return flat[:: -(-flat.numel() // PROBES)].float().cpu().clone()
