"""Feature distance under random sub-pixel shifts.

A strided network sees some pixel phases better than others, and a network trained against it alone learns to paint the
phases it cannot see: the 4-px lattice of one-step systems. Both pictures are therefore shifted by the same random
fraction of a pixel before the features are taken, and networks take turns (the trainer's choice).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .feature_statistics import blocks, exact, positions
from .registry import SRStep, loss

MAX_SHIFT = 4.0
"""Random shift of both pictures before the feature networks, px: one lattice period of the patch decoder."""


def shift(x: Tensor, dy: float, dx: float) -> Tensor:
    """Move a picture by (dy, dx) >= 0 pixels, bilinear, and crop what left the frame: [B, C, H, W] -> [B, C, H', W'].

    H' = H - floor(dy) - 1 and likewise W'; both pictures of a pair must be shifted alike.
    """
    iy, ix = int(dy), int(dx)
    fy, fx = dy - iy, dx - ix
    x = x[:, :, iy:, ix:]
    x = (1 - fy) * x[:, :, :-1] + fy * x[:, :, 1:]
    return (1 - fx) * x[:, :, :, :-1] + fx * x[:, :, :, 1:]


def feature_distance(features_x: Sequence[Tensor], features_y: Sequence[Tensor]) -> Tensor:
    """Mean over layers of |fx - fy|_1 / |fy|_1, for networks without weights of their own for a distance.

    Each layer is scaled as a whole. Normalising every position, as LPIPS does, makes flat areas count as much as
    detail: with EfficientNet-Lite0 the gradient on pixels was six times larger for it and drowned the other terms.
    """
    terms = [
        (x.float() - y.float()).abs().mean() / y.detach().float().abs().mean().clamp(min=1e-6)
        for x, y in zip(features_x, features_y, strict=True)
    ]
    return torch.stack(terms).mean()


STABILITY = 0.01
"""Floor of a channel's squared mean and variance, as a share of its layer's mean square: silence does not count."""


class _Texture(torch.autograd.Function):
    """Mean similarity of two feature maps: from the sums of x, y, x y, x^2 and y^2 of each channel."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
        x_BNC, y_BNC = positions(x_BCHW), positions(y_BCHW)
        (batch, n, channels), dtype = x_BNC.shape, exact(x_BNC.dtype)
        sums = x_BNC.new_zeros(5, batch, channels, dtype=dtype)
        for picture, (x_NC, y_NC) in enumerate(zip(x_BNC, y_BNC, strict=True)):
            for some in blocks(x_NC):
                x, y = x_NC[some].to(dtype, copy=True), y_NC[some].to(dtype, copy=True)
                parts = [x.sum(dim=0), y.sum(dim=0), (x * y).sum(dim=0), x.square_().sum(dim=0), y.square_().sum(dim=0)]
                sums[:, picture] += torch.stack(parts)
        mean_x, mean_y, xy, xx, yy = sums.div_(n)
        floor = STABILITY * yy.mean().clamp(min=1e-6)
        covariance = xy - mean_x * mean_y
        above, below = 2 * mean_x * mean_y + floor, mean_x.square() + mean_y.square() + floor
        above_c, below_c = 2 * covariance + floor, xx - mean_x.square() + yy - mean_y.square() + floor
        texture, structure = above / below, above_c / below_c
        ctx.save_for_backward(x_BNC, y_BNC, mean_x, mean_y, texture, below, structure, below_c)
        ctx.shape = x_BCHW.shape
        return 0.5 * (texture + structure).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """The gradient at x is a + b x + c y, with numbers of each channel of each picture."""
        (grad,) = grad_outputs
        x_BNC, y_BNC, mean_x, mean_y, texture, below, structure, below_c = ctx.saved_tensors
        scale = grad / (mean_x.numel() * x_BNC.shape[1])
        of_x, of_y = -scale * structure / below_c, scale / below_c
        constant = scale * (mean_y - texture * mean_x) / below - of_x * mean_x - of_y * mean_y
        result = torch.empty_like(x_BNC)
        for x_NC, y_NC, out, a, b, c in zip(x_BNC, y_BNC, result, constant, of_x, of_y, strict=True):
            for some in blocks(x_NC):
                x, y = x_NC[some].to(a.dtype), y_NC[some].to(a.dtype)
                out[some] = torch.addcmul(a, x, b).addcmul_(y, c)
        return result.unflatten(1, ctx.shape[2:]).movedim(-1, 1), None


def texture_distance(features_x: Sequence[Tensor], features_y: Sequence[Tensor]) -> Tensor:
    """1 - mean similarity of each channel's mean (texture) and covariance (structure) over the picture.

    The form of DISTS (Ding et al. 2020) with equal weights, for networks without published ones. Means ask for the
    right amount of texture and not for its place, which a distance position by position answers with a blur.
    Differentiable in `features_x` alone, once.
    """
    similarities = [_Texture.apply(x, y.detach()) for x, y in zip(features_x, features_y, strict=True)]
    return 1.0 - torch.stack(similarities).mean()


def perceptual(pixels: Tensor, pixels_hr: Tensor, distance: Callable[[Tensor, Tensor], Tensor], offset: Tensor) -> dict:
    """{"perceptual": mean distance of the two pictures, both shifted by `offset`}.

    pixels, pixels_hr: [B, 3, H, W] in [-1, 1].  distance: pictures in [0, 1] -> scalar or [B].
    offset: [2] random numbers in [0, max_shift) pixels, drawn by the caller so that runs are reproducible.
    """
    dy, dx = (float(v) for v in offset)
    x, y = (shift(p.mul(0.5).add(0.5), dy, dx) for p in (pixels, pixels_hr))
    return {"perceptual": distance(x, y).mean()}


def random_window(x: Tensor, y: Tensor, side: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same random square of two batches [B, C, H, W]; both whole where `side` does not fit or is 0."""
    height, width = x.shape[-2:]
    if not 0 < side < min(height, width):
        return x, y
    top, left = (int(torch.randint(room - side + 1, (), generator=rng)) for room in (height, width))
    window = (..., slice(top, top + side), slice(left, left + side))
    return x[window], y[window]


@loss("perceptual")
def _perceptual(step: SRStep) -> dict[str, Tensor]:
    if step.distance is None:
        return {}
    offset = step.random.common(2) * MAX_SHIFT
    view, view_hr = random_window(step.pixels, step.target, step.perceptual_crop, step.random.generator)
    return perceptual(view, view_hr, step.distance, offset)
