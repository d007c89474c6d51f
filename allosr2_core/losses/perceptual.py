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


STABILITY = 0.01
"""Floor of a channel's squared mean and variance, as a share of its layer's mean square: silence does not count."""


def texture_distance(features_x: Sequence[Tensor], features_y: Sequence[Tensor]) -> Tensor:
    """1 - mean similarity of each channel's mean (texture) and covariance (structure) over the picture.

    The form of DISTS (Ding et al. 2020) with equal weights, for trunks without published ones. Means ask for the right
    amount of texture and not for its place, which a distance position by position answers with a blur.
    """
    similarities = []
    for x, y in zip(features_x, features_y, strict=True):
        x_BCN, y_BCN = x.float().flatten(2), y.float().flatten(2)
        floor = STABILITY * y_BCN.detach().square().mean().clamp(min=1e-6)
        mean_x, mean_y = x_BCN.mean(dim=2), y_BCN.mean(dim=2)
        dx, dy = x_BCN - mean_x[:, :, None], y_BCN - mean_y[:, :, None]
        texture = (2 * mean_x * mean_y + floor) / (mean_x.square() + mean_y.square() + floor)
        structure = (2 * (dx * dy).mean(dim=2) + floor) / (dx.square().mean(dim=2) + dy.square().mean(dim=2) + floor)
        similarities.append(0.5 * (texture + structure).mean())
    return 1.0 - torch.stack(similarities).mean()


def perceptual(pixels: Tensor, pixels_hr: Tensor, distance: Callable[[Tensor, Tensor], Tensor], offset: Tensor) -> dict:
    """{"perceptual": mean distance of the two pictures, both shifted by `offset`}.

    pixels, pixels_hr: [B, 3, H, W] in [-1, 1].  distance: pictures in [0, 1] -> scalar or [B].
    offset: [2] random numbers in [0, max_shift) pixels, drawn by the caller so that runs are reproducible.
    """
    dy, dx = (float(v) for v in offset)
    x, y = (shift(p.mul(0.5).add(0.5), dy, dx) for p in (pixels, pixels_hr))
    return {"perceptual": distance(x, y).mean()}
