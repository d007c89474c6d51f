"""Feature distance under random sub-pixel shifts.

A strided trunk sees some pixel phases better than others, and a network trained against it alone learns to paint the
phases it cannot see: the 4-px lattice of one-step systems. Both pictures are therefore shifted by the same random
fraction of a pixel before the features are taken, and trunks take turns (the trainer's choice).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

FeatureFn = Callable[[Tensor], Sequence[Tensor]]
"""Pixels [B, 3, H, W] in [0, 1] -> feature maps, each [B, C, h, w]."""


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
    """Mean over layers of |fx - fy|_1 / |fy|_1, for trunks without weights of their own for a distance.

    Each layer is scaled as a whole. Normalising every position, as LPIPS does, makes flat areas count as much as
    detail: with EfficientNet-Lite0 the gradient on pixels was six times larger for it and drowned the other terms.
    """
    terms = [
        (x.float() - y.float()).abs().mean() / y.detach().float().abs().mean().clamp(min=1e-6)
        for x, y in zip(features_x, features_y, strict=True)
    ]
    return torch.stack(terms).mean()


def perceptual(pixels: Tensor, pixels_hr: Tensor, distance: Callable[[Tensor, Tensor], Tensor], offset: Tensor) -> dict:
    """{"perceptual": mean distance of the two pictures, both shifted by `offset`}.

    pixels, pixels_hr: [B, 3, H, W] in [-1, 1].  distance: pictures in [0, 1] -> scalar or [B].
    offset: [2] random numbers in [0, max_shift) pixels, drawn by the caller so that runs are reproducible.
    """
    dy, dx = (float(v) for v in offset)
    x, y = (shift(p.mul(0.5).add(0.5), dy, dx) for p in (pixels, pixels_hr))
    return {"perceptual": distance(x, y).mean()}
