"""Sums over feature maps, a few pictures at a time, so that what is made on the way stays in a processor's cache.

Feature maps are large, and the arithmetic on them is little: written as formulas over whole batches it costs as much as
the networks that made them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 2**17
"""Values of a feature map that are worked on at a time on a CPU, half a megabyte in fp32; other devices take all."""


def positions(x_BCHW: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H * W, C]: a view of what is stored channels last."""
    return x_BCHW.contiguous(memory_format=torch.channels_last).movedim(1, -1).flatten(1, 2)


def blocks(x_NC: Tensor) -> Iterator[slice]:
    """Slices of rows that are worked on together."""
    rows, channels = x_NC.shape
    count = max(1, BLOCK // channels) if x_NC.device.type == "cpu" else rows
    for start in range(0, rows, count):
        yield slice(start, start + count)


def exact(dtype: torch.dtype) -> torch.dtype:
    """What sums over values of a type are made in: fp32, or fp64 for fp64."""
    return torch.promote_types(dtype, torch.float32)
