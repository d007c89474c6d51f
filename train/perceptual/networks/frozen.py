"""Convolutions whose weights are frozen: kept in the type that they are used in, with gradients for their input alone.

Automatic gradients cast the weights in every pass, keep the input of every layer though only its shape is needed, and
take a path for depthwise strides that is twenty times as slow as the convolution.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenConv2d) -> Tensor:
        weight, bias = layer.prepared(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            y = F.conv2d(x, weight, bias, layer.stride, layer.surround, groups=layer.groups)
        if layer.rectified:
            y.relu_()
            ctx.save_for_backward(y)
        ctx.layer, ctx.shape = layer, x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (grad,) = grad_outputs
        layer = ctx.layer
        if layer.rectified:
            (y,) = ctx.saved_tensors
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        with torch.autocast(grad.device.type, enabled=False):
            return input_gradient(grad, ctx.shape, layer), None


def input_gradient(grad: Tensor, shape: torch.Size, layer: FrozenConv2d) -> Tensor:
    """The adjoint of a layer's convolution, of an input of a shape: where it is faster, as a convolution."""
    (stride, _), (kernel, _), surround = layer.stride, layer.prepared(grad.dtype)[0].shape[2:], layer.surround
    depthwise = layer.groups == shape[1] == grad.shape[1]
    if not (depthwise or (stride == 1 and layer.groups == 1)):
        weight = layer.prepared(grad.dtype)[0]
        return conv2d_input(shape, weight, grad, stride, surround, groups=layer.groups)
    if stride > 1:
        size = [side + 2 * surround - kernel + 1 for side in shape[2:]]
        spread = torch.empty(*grad.shape[:2], *size, dtype=grad.dtype, device=grad.device)
        spread = spread.to(memory_format=torch.channels_last).zero_()
        spread[:, :, ::stride, ::stride] = grad
        grad = spread
    return F.conv2d(grad, layer.turned(grad.dtype), padding=kernel - 1 - surround, groups=layer.groups)


class FrozenConv2d(nn.Conv2d):
    """A convolution that is never trained, in the type of autocast; `rectified`: and the ReLU after it."""

    def __init__(self, *arguments: Any, rectified: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rectified = rectified
        self._ready: dict[str, Any] = {}
        self._ready_for: tuple[Any, ...] = ()

    @property
    def surround(self) -> int:
        """Zeros around the input, px."""
        return int(self.padding[0])

    def kernels(self) -> Tensor:
        """What the input is convolved with, from the weights."""
        return self.weight

    def forward(self, input: Tensor) -> Tensor:
        device = input.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else input.dtype
        return _Convolution.apply(input.to(dtype), self)

    def prepared(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """(kernels, bias) in a type."""
        ready = self._current(dtype)
        if "weight" not in ready:
            ready["weight"] = self.kernels().detach().to(dtype)
            ready["bias"] = self.bias.detach().to(dtype) if self.bias is not None else None
        return ready["weight"], ready["bias"]

    def turned(self, dtype: torch.dtype) -> Tensor:
        """The kernels that take a gradient back."""
        ready = self._current(dtype)
        if "turned" not in ready:
            turned = self.prepared(dtype)[0].flip(2, 3)
            turned = turned if self.groups > 1 else turned.transpose(0, 1)
            ready["turned"] = turned.contiguous(memory_format=torch.channels_last)
        return ready["turned"]

    def _current(self, dtype: torch.dtype) -> dict[str, Any]:
        """What is kept, while the weights are the ones it was made of; weights of inference mode cannot tell."""
        if self.weight.is_inference():
            return {}
        of = (dtype, self.weight.device, self.weight.data_ptr(), self.weight._version)  # noqa: SLF001
        if self._ready_for != of:
            self._ready, self._ready_for = {}, of
        return self._ready
