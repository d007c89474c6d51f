"""What the upscaler's LATENT carries besides its samples, so that the decode can finish the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.finish import Target
from .summary import Work

KEY = "allosr2"
PROBES = 4096
"""Values of one picture's latents that are kept, to recognise it and to tell whether another node changed it."""


@dataclass(frozen=True)
class Origin:
    """Where latents come from, and what they are to become."""

    target: Target
    start: Tensor
    """Raw z_L, [B, C, h, w]: what the step started from."""
    work: Work
    probes: Tensor
    """[B, N], of the latents as the step made them."""


def latent(samples: Tensor, start: Tensor, target: Target, work: Work) -> dict[str, Any]:
    """Raw latents [B, C, h, w], and where they come from. Core nodes ignore and pass on the second entry."""
    return {"samples": samples, KEY: Origin(target, start, work, _probes(samples))}


def origin_of(latent: dict[str, Any], downscale: int) -> tuple[Origin, list[int]]:
    """What `latent` was given, and which picture of it each of the samples is.

    Samples may have been picked out of their batch, repeated or put in another order. AlloSR2Error when another node
    resized, cropped or changed them.
    """
    samples, origin = latent["samples"], latent[KEY]
    layout = origin.target.layout
    expected = (layout.padded_height // downscale, layout.padded_width // downscale)
    found = tuple(samples.shape[-2:])
    if found != expected:
        raise AlloSR2Error(
            f"expected latents (height, width) {expected} as AlloSR2 One-Step Upscale made them; got {found}. "
            "Decode first and resize the picture, or use VAE Decode"
        )
    pictures = []
    for probes in _probes(samples):
        same = (origin.probes == probes).all(dim=1).nonzero()
        if same.numel() == 0:
            raise AlloSR2Error(
                "expected the latents as AlloSR2 One-Step Upscale made them; another node has changed them, and the "
                "picture they came from no longer tells what their colours, mask and alpha are. Use VAE Decode"
            )
        pictures.append(int(same[0]))
    return origin, pictures


def _probes(samples: Tensor) -> Tensor:
    flat = samples.flatten(1)
    return flat[:, :: -(-flat.shape[1] // PROBES)].float().cpu().clone()
