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
        y = _means(x * x, kernel, stride=stride, more=floor).sqrt_()
        ctx.save_for_backward(x, y)
        ctx.kernel, ctx.stride = kernel, stride
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (grad,) = grad_outputs
        x, y = ctx.saved_tensors
        kernel, stride = ctx.kernel, ctx.stride
        shares = grad / y
        if stride == 1:  # every value lies in kernel^2 windows: a mean over them, with zeros around
            return _means(shares, kernel, stride=1, around=kernel - 1).mul_(x), None, None, None
        spread = F.interpolate(shares * kernel**-2, scale_factor=kernel)
        missing = [whole - side for whole, side in zip(x.shape[2:], spread.shape[2:], strict=True)]
        return x * F.pad(spread, (0, missing[1], 0, missing[0])), None, None, None


def _means(x: Tensor, kernel: int, *, stride: int, around: int = 0, more: float = 0.0) -> Tensor:
    """Means over kernel x kernel, with `around` rows of zeros on every side, plus `more`.

    Where the weights are exact in any type, by a convolution, which is faster than pooling.
    """
    if kernel & (kernel - 1):
        return F.avg_pool2d(F.pad(x, (around,) * 4), kernel, stride=stride).add_(more)
    channels = x.shape[1]
    weight, bias = x.new_full((channels, 1, kernel, kernel), kernel**-2), x.new_full((channels,), more)
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, weight, bias, stride=stride, padding=around, groups=channels)


def root_mean_square(x_BCHW: Tensor, kernel: int, *, stride: int, floor: float) -> Tensor:
    """sqrt(mean of x^2 over kernel x kernel + floor), without padding; `stride` is 1 or `kernel`."""
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
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # type: ignore[override]
        """Between values two apart the adjoint of [1 2 1] interpolates, and what was mirrored is folded back."""
        (grad,) = grad_outputs
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
