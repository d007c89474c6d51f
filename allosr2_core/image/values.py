"""What the values of an IMAGE may be: the one rule for pictures handed over as tensors."""

import math

import torch
from torch import Tensor

from ..errors import AlloSR2Error

LEAST, MOST = -1.0, 2.0
"""What sharpening and resizing by other programs leave beside 0..1 is far inside."""


def check_image(image: Tensor) -> None:
    """AlloSR2Error for what is no batch of pictures, [B, H, W, 1, 3 or 4] of a floating-point type, in [0, 1].

    Values a little outside, from LEAST to MOST, are taken for the nearest one inside. Further out they have another
    meaning, such as 0..255, and clamping would lose the picture.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or image.numel() == 0:
        raise AlloSR2Error(f"expected images (B, H, W, 1, 3 or 4), got {tuple(image.shape)}")
    if not image.is_floating_point():
        raise AlloSR2Error(f"expected an image of floating-point values in 0..1; got {image.dtype}: divide by 255")
    low, high = (float(value) for value in torch.aminmax(image.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise AlloSR2Error("expected an image of finite pixels in 0..1; it has NaN or infinite values")
    if low < LEAST or high > MOST:
        raise AlloSR2Error(f"expected an image of values in 0..1; got {low:g}..{high:g}: divide by what is white in it")
