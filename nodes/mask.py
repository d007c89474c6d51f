"""A MASK that says where to restore, told from the masks that Load Image gives for transparency."""

from __future__ import annotations

import torch
from torch import Tensor

from ..allosr2_core.errors import AlloSR2Error

HOST_EMPTY = (64, 64)
"""Height and width of the black mask Load Image gives for a picture without transparency."""


def refuse_alpha_as_mask(image: Tensor, mask: Tensor) -> None:
    """AlloSR2Error for masks [B, H, W] that stand for the transparency of the image [B, H, W, C], not for a choice.

    Load Image's MASK is 1 where a picture is transparent; without transparency it is black and of no picture's size. A
    black mask that fits keeps the whole plain enlargement, and is taken at its word.
    """
    if tuple(mask.shape[-2:]) == HOST_EMPTY and tuple(image.shape[1:3]) != HOST_EMPTY and not bool(mask.any()):
        raise AlloSR2Error(
            "expected a mask of the image's size; got the empty 64x64 mask of Load Image, which means that the picture "
            "has no transparency. Disconnect 'mask', or draw one (right click on Load Image, Open in MaskEditor)"
        )
    fits = mask.ndim == 3 and mask.shape[0] in (1, image.shape[0]) and mask.shape[1:] == image.shape[1:3]
    if image.shape[-1] == 4 and fits:  # another shape is refused where masks are checked
        transparency = 1.0 - image[..., 3]
        if bool(transparency.any()) and bool(torch.isclose(mask.to(image), transparency, atol=1 / 512, rtol=0).all()):
            raise AlloSR2Error(
                "expected a mask that says where to restore; got the image's own transparency. Alpha is kept without "
                "it: disconnect 'mask'"
            )
