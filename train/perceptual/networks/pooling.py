"""Pooling of feature maps with gradients of their own: what automatic ones cost more than the convolutions between.

Each is the plain formula in the type of its input; sums are in fp32, as those of any pooling.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from .base import binomial


class _RootMeanSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, stride: int, floor: float) -> Tensor:
        y = F.avg_pool2d(x * x, kernel, stride=stride).add_(floor).sqrt_()
        ctx.save_for_backward(x, y)
        ctx.kernel, ctx.stride = kernel, stride
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, y = ctx.saved_tensors
        kernel, stride = ctx.kernel, ctx.stride
        shares = grad / y
        if stride == 1:  # every value lies in kernel^2 windows: a mean over them, with zeros around
            rest = (kernel - 1) // 2
            padded = F.pad(shares, (rest,) * 4) if rest else shares
            spread = F.avg_pool2d(padded, kernel, stride=1, padding=kernel - 1 - rest)
        else:
            spread = torch.ops.aten.avg_pool2d_backward(
                shares, x, [kernel, kernel], [stride, stride], [0, 0], False, True, None
            )
        return x * spread, None, None, None


def root_mean_square(x_BCHW: Tensor, kernel: int, *, stride: int, floor: float) -> Tensor:
    """sqrt(mean of x^2 over kernel x kernel + floor), without padding."""
    return _RootMeanSquare.apply(x_BCHW, kernel, stride, floor)


class _Blur(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape[2:]
        channels = x.shape[1]
        weight = binomial().to(x).repeat(channels, 1, 1, 1)
        with torch.autocast(x.device.type, enabled=False):  # which would pad in fp32
            return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), weight, stride=2, groups=channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Between values two apart the adjoint of [1 2 1] interpolates, and what was mirrored is folded back."""
        height, width = ctx.size
        around = F.pad(grad * 0.25, (1, 1, 1, 1))
        size = [2 * side - 1 for side in around.shape[2:]]
        full = F.interpolate(around, size=size, mode="bilinear", align_corners=True)[:, :, 1:-1, 1:-1]
        if full.shape[2:] != (height + 4, width + 4):  # an even side: the last padded row has no window
            full = F.pad(full, (0, width + 4 - full.shape[3], 0, height + 4 - full.shape[2]))
        for dim, side in ((2, height), (3, width)):
            for k in (1, 2):
                full.select(dim, 2 + k).add_(full.select(dim, 2 - k))
                full.select(dim, side + 1 - k).add_(full.select(dim, side + 1 + k))
        return full[:, :, 2:-2, 2:-2]


def blur_pool(x_BCHW: Tensor) -> Tensor:
    """Antialiased subsampling: reflect pad 2, depthwise [1 2 1] x [1 2 1] / 16, stride 2."""
    return _Blur.apply(x_BCHW)
