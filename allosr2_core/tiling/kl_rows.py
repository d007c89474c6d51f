"""Feature maps whose rows are made when they are asked for: what `kl_strips.py` runs a network on.

A map is stored, or follows from another: convolved, upsampled, downsampled, mapped value by value.
Shape letters: 1 item, C channels, H x W, R rows of a strip, O and I channels of a kernel out and in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

Conv = Callable[[Tensor], Tensor]


class Rows(Protocol):
    """A feature map whose rows can be had one strip at a time."""

    channels: int
    height: int
    width: int
    stored: int
    """Bytes that are kept for it."""

    def rows(self, first: int, last: int) -> Tensor:
        """Rows first to last - 1, [1, C, R, W]."""
        ...


class Stored:
    """A feature map in memory."""

    def __init__(self, x_1CHW: Tensor) -> None:
        self.x = x_1CHW
        self.channels, self.height, self.width = x_1CHW.shape[1:]
        self.stored = x_1CHW.numel() * x_1CHW.element_size()

    def rows(self, first: int, last: int) -> Tensor:
        return self.x[:, :, first:last]


class Convolved:
    """conv(x), made row by row: a 3x3 conv of stride 1 that pads by itself."""

    def __init__(self, source: Rows, conv: Conv, channels: int) -> None:
        self.source, self.conv = source, conv
        self.channels, self.height, self.width, self.stored = channels, source.height, source.width, source.stored

    def rows(self, first: int, last: int) -> Tensor:
        low, high = max(first - 1, 0), min(last + 1, self.height)
        return self.conv(self.source.rows(low, high))[:, :, first - low : last - low]


class Doubled:
    """Every pixel twice in both directions, then a 3x3 conv of stride 1, made row by row.

    Of nine pixels under the kernel four are different: in fp32 the weights of those alike are summed, for each of the
    four places in a 2x2 block, which leaves 4/9 of the work. Other types would round the sums, and a host's layer may
    change its weight as it is called (`weight_function`): those are called as they are.
    """

    def __init__(self, source: Rows, conv: Any) -> None:
        self.source, self.conv, self.channels = source, conv, conv.out_channels
        self.height, self.width, self.stored = 2 * source.height, 2 * source.width, source.stored
        weight = conv.weight
        plain = weight.dtype == torch.float32 and not getattr(conv, "weight_function", ())
        self.summed = _summed(weight.detach()) if plain else None

    def rows(self, first: int, last: int) -> Tensor:
        start, end = first // 2, -(-last // 2)
        low, high = max(start - 1, 0), min(end + 1, self.source.height)
        x = self.source.rows(low, high)
        if self.summed is not None and (self.summed.dtype, self.summed.device) == (x.dtype, x.device):
            y = self._by_place(functional.pad(x, (1, 1, low - start + 1, end + 1 - high)), self.summed)
        else:
            y = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))[:, :, 2 * (start - low) :]
        return y[:, :, first - 2 * start : last - 2 * start]

    def _by_place(self, padded_1CRW: Tensor, summed: Tensor) -> Tensor:
        """Rows of the result from rows with one more on each side."""
        bias = None if self.conv.bias is None else self.conv.bias.detach().repeat(4)
        parts = functional.conv2d(padded_1CRW, summed, bias).unflatten(1, (2, 2, -1))
        rows, columns = parts.shape[4] - 1, parts.shape[5] - 1
        result = parts.new_empty((1, self.channels, 2 * rows, 2 * columns))
        for a in (0, 1):
            for b in (0, 1):
                result[:, :, a::2, b::2] = parts[:, a, b, :, a : a + rows, b : b + columns]
        return result


def _summed(weight_OIkk: Tensor) -> Tensor:
    """Kernels [2 * 2 * O, I, 2, 2] of a 3x3 conv on doubled pixels, by row and column of the result in a 2x2 block."""

    def pairs(w: Tensor, dim: int) -> list[Tensor]:
        one, two, three = w.unbind(dim)
        return [torch.stack([one, two + three], dim), torch.stack([one + two, three], dim)]

    return torch.cat([w for rows in pairs(weight_OIkk, 2) for w in pairs(rows, 3)])


class Halved:
    """A strided 3x3 conv that sees one row and column of zeros past the right and bottom edge, row by row."""

    def __init__(self, source: Rows, conv: Conv, channels: int) -> None:
        self.source, self.conv, self.channels = source, conv, channels
        self.height, self.width, self.stored = source.height // 2, source.width // 2, source.stored

    def rows(self, first: int, last: int) -> Tensor:
        low, high = 2 * first, 2 * last + 1
        x = self.source.rows(low, min(high, self.source.height))
        return self.conv(functional.pad(x, (0, 1, 0, high - low - x.shape[2])))


class Mapped:
    """A function of single pixels, made row by row."""

    def __init__(self, source: Rows, function: Callable[[Tensor], Tensor]) -> None:
        self.source, self.function = source, function
        self.channels, self.height, self.width = source.channels, source.height, source.width
        self.stored = source.stored

    def rows(self, first: int, last: int) -> Tensor:
        return self.function(self.source.rows(first, last))


class Window:
    """Some rows of a feature map, made once for several uses; the others cannot be had."""

    def __init__(self, source: Rows, x_1CRW: Tensor, low: int) -> None:
        self.x, self.low = x_1CRW, low
        self.channels, self.height, self.width, self.stored = (
            source.channels,
            source.height,
            source.width,
            source.stored,
        )

    def rows(self, first: int, last: int) -> Tensor:
        return self.x[:, :, first - self.low : last - self.low]


class Overwritten:
    """Windows on a stored map that is overwritten from the top: the last old rows are remembered."""

    def __init__(self, source: Rows, reach: int) -> None:
        self.source, self.reach = source, reach
        self.old: Tensor | None = None

    def window(self, first: int, last: int) -> Window:
        """Rows first - reach to last + reach as they were before; asked for strip by strip, downwards."""
        low, high = max(first - self.reach, 0), min(last + self.reach, self.source.height)
        x = self.source.rows(first, high)
        if self.old is not None:
            x = torch.cat([self.old[:, :, self.old.shape[2] - (first - low) :], x], dim=2)
        kept = max(last - self.reach, low)
        self.old = x[:, :, kept - low : last - low].clone()
        return Window(self.source, x, low)
