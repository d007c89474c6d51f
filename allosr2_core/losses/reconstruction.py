"""Distance between the one-step result and the truth, in pixels and in latents."""

from __future__ import annotations

from torch import Tensor

from .registry import SRStep, loss

CHARBONNIER_EPS = 1e-3


def charbonnier(x: Tensor, y: Tensor) -> Tensor:
    """Smooth L1: mean of sqrt((x - y)^2 + eps^2), a scalar. eps = 1e-3 on the scale of [-1, 1] pixels."""
    return ((x - y).square() + CHARBONNIER_EPS**2).sqrt().mean()


def latent_error(z_hat: Tensor, z_hr: Tensor) -> Tensor:
    """Mean squared error of latents [B, C, h, w], a scalar."""
    return (z_hat - z_hr).square().mean()


@loss("rec_pixel")
def _rec_pixel(step: SRStep) -> dict[str, Tensor]:
    return {"rec_pixel": charbonnier(step.pixels, step.target)}


@loss("rec_latent")
def _rec_latent(step: SRStep) -> dict[str, Tensor]:
    return {"rec_latent": latent_error(step.z_hat, step.z_target)}


@loss("decode", thinned=True)
def _decode(step: SRStep) -> dict[str, Tensor]:
    """A decoder that is trained along still inverts the encoder."""
    return {"decode": charbonnier(step.decode(step.z_hr).float(), step.hr)}
