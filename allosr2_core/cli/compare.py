"""A strip to compare with: left what plain enlarging gives, right the result."""

import torch
from torch import Tensor

from ..image.geometry import resize_bicubic

MAX_WIDTH = 4096  # px
LINE = 2  # px, between the two


def compare_strip(image_BHWC: Tensor, result_BHWC: Tensor) -> Tensor:
    """[1, H, W, 3 or 4] of one input and its result, at most MAX_WIDTH px wide.

    Both halves have the result's size, scaled down where that is too wide; between them is a line of LINE px. The left
    half is the bicubic enlargement of the input.
    """
    height, width = result_BHWC.shape[1:3]
    shown = min(width, (MAX_WIDTH - LINE) // 2)
    size = max(1, (2 * height * shown + width) // (2 * width)), shown
    halves = [resize_bicubic(picture[:1], *size) for picture in (image_BHWC, result_BHWC)]
    line = torch.full((1, size[0], LINE, halves[0].shape[-1]), 1.0)
    return torch.cat((halves[0], line, halves[1]), dim=2)
