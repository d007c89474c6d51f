"""The fine texture of a picture: what a mean over a few pixels leaves out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class _FineTexture(torch.autograd.Function):
    """x - M x with means M, whose adjoint is the same convolutions after the weights at the border, not before them."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, side: int) -> Tensor:
        ctx.side = side
        mean = _convolved(pixels, side)
        _raise_border(mean, side)
        return torch.sub(pixels, mean, out=mean)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (grad,) = grad_outputs
        raised = grad.clone(memory_format=torch.channels_last)
        _raise_border(raised, ctx.side)
        mean = _convolved(raised, ctx.side)
        return torch.sub(grad, mean, out=mean), None


def _convolved(x: Tensor, side: int) -> Tensor:
    """Sums of side x side pixels and zeros around, over side^2: by rows and columns."""
    channels = x.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        for kernel in ((side, 1), (1, side)):
            weight = torch.full((channels, 1, *kernel), 1 / side, dtype=x.dtype, device=x.device)
            x = x.contiguous(memory_format=torch.channels_last)  # several times as fast
            x = F.conv2d(x, weight, padding=(kernel[0] // 2, kernel[1] // 2), groups=channels)
    return x


def _raise_border(x: Tensor, side: int) -> None:
    """From sums over side^2 to means over the pixels there are, in place."""
    reach = side // 2
    for dim in (2, 3):
        extent = x.shape[dim]
        for at in range(extent):
            if reach <= at < extent - reach:
                continue
            there = min(at + reach, extent - 1) - max(at - reach, 0) + 1
            x.select(dim, at).mul_(side / there)


def fine_texture(pixels: Tensor, side: int) -> Tensor:
    """What a mean over side x side pixels (at the border: over those there are) leaves out.

    pixels: [B, C, H, W], `side` odd. Differentiable once.
    """
    return _FineTexture.apply(pixels, side)
