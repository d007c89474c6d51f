"""Distance between the one-step result and the truth, in pixels and in latents."""

from __future__ import annotations

from torch import Tensor

CHARBONNIER_EPS = 1e-3


def charbonnier(x: Tensor, y: Tensor) -> Tensor:
    """Smooth L1: mean of sqrt((x - y)^2 + eps^2), a scalar. eps = 1e-3 on the scale of [-1, 1] pixels."""
    return ((x - y).square() + CHARBONNIER_EPS**2).sqrt().mean()


def reconstruction(pixels: Tensor, pixels_hr: Tensor, z_hat: Tensor, z_hr: Tensor) -> dict[str, Tensor]:
    """{"rec_pixel": Charbonnier on decoded pixels [B, 3, H, W], "rec_latent": mean squared error of latents}."""
    return {"rec_pixel": charbonnier(pixels, pixels_hr), "rec_latent": (z_hat - z_hr).square().mean()}
