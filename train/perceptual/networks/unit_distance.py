"""The distance of LPIPS at one level, with a gradient of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from allosr2_core.losses.feature_statistics import blocks, exact, positions

EPS = 1e-10
"""Added to the length of a channel vector, and to its square: the gradient of a root at zero would be infinite."""


class _UnitDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, y_BCHW: Tensor, weight_C: Tensor) -> Tensor:
        x_BNC, y_BNC = positions(x_BCHW), positions(y_BCHW)
        dtype = exact(x_BNC.dtype)
        weight = weight_C.to(dtype)
        scales, distances = [], []
        with torch.autocast(x_BNC.device.type, enabled=False):
            for some in blocks(x_BNC):
                x, y = x_BNC[some].to(dtype, copy=True), y_BNC[some].to(dtype, copy=True)
                xy_BN, x, y = (x * y) @ weight, x.square_(), y.square_()
                root_x, root_y = (z.sum(dim=2).add_(EPS * EPS).sqrt_() for z in (x, y))
                length_x, length_y = root_x + EPS, root_y + EPS
                xx_BN, xy_BN, yy_BN = (
                    x @ weight / length_x.square(),
                    xy_BN / (length_x * length_y),
                    y @ weight / length_y.square(),
                )
                distances.append((xx_BN - 2 * xy_BN + yy_BN).mean(dim=1))
                along = (xx_BN - xy_BN) / (root_x * length_x)
                scales.append(torch.stack([1 / length_x.square(), 1 / (length_x * length_y), along]))
        ctx.save_for_backward(x_BNC, y_BNC, weight, torch.cat(scales, dim=1))
        ctx.shape = x_BCHW.shape
        return torch.cat(distances)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor, None, None]:
        x_BNC, y_BNC, weight, scales = ctx.saved_tensors
        of_x, of_y, along = scales * (2 * grad_B / x_BNC.shape[1])[:, None]
        result = torch.empty_like(x_BNC)
        for some in blocks(x_BNC):
            x, y = x_BNC[some].to(weight.dtype, copy=True), y_BNC[some].to(weight.dtype, copy=True)
            x = x.mul_(torch.addcmul(-along[some, :, None], of_x[some, :, None], weight))
            result[some] = x.addcmul_(y.mul_(weight), of_y[some, :, None], value=-1)
        return result.unflatten(1, ctx.shape[2:]).movedim(-1, 1), None, None


def unit_distance(x_BCHW: Tensor, y_BCHW: Tensor, weight_C: Tensor) -> Tensor:
    """Mean over positions of sum over channels of weight * (x / |x| - y / |y|)^2: [B], in fp32.

    The channel vector of each position is scaled to length one (Zhang et al. 2018, section 3). Differentiable in x
    alone, once.
    """
    return _UnitDistance.apply(x_BCHW, y_BCHW.detach(), weight_C.detach())
