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
        batch, channels = x_BCHW.shape[:2]
        x_NC, y_NC = (positions(z).flatten(0, 1) for z in (x_BCHW, y_BCHW))
        dtype = exact(x_NC.dtype)
        weight = weight_C.to(dtype)
        sums = x_NC.new_empty(5, x_NC.shape[0], dtype=dtype)
        with torch.autocast(x_NC.device.type, enabled=False):
            for some in blocks(x_NC):
                xx, yy, xy, square_x, square_y = sums[:, some]
                x, y = (z[some].to(dtype, copy=True) for z in (x_NC, y_NC))
                torch.mv(x * y, weight, out=xy)
                for z, weighed, square in ((x.square_(), xx, square_x), (y.square_(), yy, square_y)):
                    torch.mv(z, weight, out=weighed)
                    torch.sum(z, dim=1, out=square)
        xx, yy, xy, square_x, square_y = sums
        root_x, root_y = square_x.add_(EPS * EPS).sqrt_(), square_y.add_(EPS * EPS).sqrt_()
        length_x, length_y = root_x + EPS, root_y + EPS
        xx, xy, yy = xx / length_x.square(), xy / (length_x * length_y), yy / length_y.square()
        scales = 1 / length_x.square(), 1 / (length_x * length_y), (xx - xy) / (root_x * length_x)
        ctx.save_for_backward(x_NC, y_NC, weight, *scales)
        ctx.shape = x_BCHW.shape
        return (xx - 2 * xy + yy).view(batch, -1).mean(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (grad_B,) = grad_outputs
        x_NC, y_NC, weight, *scales = ctx.saved_tensors
        batch, _, height, width = ctx.shape
        scale_N = (grad_B * (2 / (height * width))).repeat_interleave(height * width)
        of_x, of_y, along = (scale_N * scale for scale in scales)
        result = torch.empty_like(x_NC)
        for some in blocks(x_NC):
            x, y = (z[some].to(weight.dtype, copy=True) for z in (x_NC, y_NC))
            x = x.mul_(torch.addcmul(-along[some, None], of_x[some, None], weight))
            result[some] = x.addcmul_(y.mul_(weight), of_y[some, None], value=-1)
        return result.view(batch, height, width, -1).movedim(-1, 1), None, None


def unit_distance(x_BCHW: Tensor, y_BCHW: Tensor, weight_C: Tensor) -> Tensor:
    """Mean over positions of sum over channels of weight * (x / |x| - y / |y|)^2: [B], in fp32.

    The channel vector of each position is scaled to length one (Zhang et al. 2018, section 3). Differentiable in x
    alone, once.
    """
    return _UnitDistance.apply(x_BCHW, y_BCHW.detach(), weight_C.detach())
