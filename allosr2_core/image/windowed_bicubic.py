"""The bicubic enlargement of a picture, made window by window: what the encoder sees, without the whole in memory."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from .geometry import reflected, resize_bicubic

KEPT_PIXELS = 2**20
"""Result up to which the enlargement is kept: 12 MiB."""
A = -0.75
"""Keys' parameter in torch's bicubic without antialiasing."""


class Kernel(Enum):
    """What an enlarged pixel is made of."""

    CUBIC = "cubic"
    """Keys' kernel (1981), four samples an axis: torch's bicubic."""
    LINEAR = "linear"
    """Two samples an axis, never beyond their values."""
    SIGNED = "signed"
    """The cubic of values that may be below 0 or above 1, not clamped."""


class Enlarged:
    """Windows of `pad_to(resize_bicubic(image, height, width), ...)` of one picture, equal but for rounding.

    Args:
        image_1HWC: in [0, 1].
        height, width: of the enlargement.
        padded_height, padded_width: with what is mirrored at the bottom and the right.
        kernel: CUBIC clamps to [0, 1].

    Small results of CUBIC are made whole, by torch, as are those with an edge that shrinks.
    """

    def __init__(
        self,
        image_1HWC: Tensor,
        height: int,
        width: int,
        padded_height: int | None = None,
        padded_width: int | None = None,
        kernel: Kernel = Kernel.CUBIC,
    ) -> None:
        old_height, old_width = image_1HWC.shape[1:3]
        image = image_1HWC.float()
        self.clamped = kernel is Kernel.CUBIC
        if self.clamped and (height < old_height or width < old_width or height * width <= KEPT_PIXELS):
            image = resize_bicubic(image, height, width)
        self.image_HWC = image[0]
        self.rows = _Axis(image.shape[1], height, padded_height or height, kernel)
        self.columns = _Axis(image.shape[2], width, padded_width or width, kernel)

    def window(self, rows: slice, cols: slice) -> Tensor:
        """Pixels [1, 3, h, w] in [-1, 1], as the encoder takes them."""
        return self.pixels(rows, cols).mul_(2.0).sub_(1.0)[None].movedim(-1, 1)

    def pixels(self, rows: slice, cols: slice) -> Tensor:
        """Pixels [h, w, C]; in [0, 1] with CUBIC."""
        row_index_h4, row_weight_h4 = self.rows.taps(rows)
        col_index_w4, col_weight_w4 = self.columns.taps(cols)
        top, bottom = int(row_index_h4.min()), int(row_index_h4.max()) + 1
        source_hWC = self.image_HWC[top:bottom]
        across_hwC = torch.zeros(bottom - top, len(col_index_w4), source_hWC.shape[2])
        for tap in range(col_index_w4.shape[1]):
            across_hwC += source_hWC[:, col_index_w4[:, tap]] * col_weight_w4[:, tap, None]
        pixels_hwC = torch.zeros(len(row_index_h4), *across_hwC.shape[1:])
        for tap in range(row_index_h4.shape[1]):
            pixels_hwC += across_hwC[row_index_h4[:, tap] - top] * row_weight_h4[:, tap, None, None]
        return pixels_hwC.clamp_(0.0, 1.0) if self.clamped else pixels_hwC


class _Axis:
    """Which samples an enlarged axis is made of, and by what weights."""

    def __init__(self, old: int, new: int, padded: int, kernel: Kernel) -> None:
        self.old, self.new, self.source, self.kernel = old, new, reflected(new, padded), kernel

    def taps(self, cells: slice) -> tuple[Tensor, Tensor]:
        """Indices and weights, [cells, taps], of some cells of the padded axis."""
        target = self.source[cells]
        if self.old == self.new:
            return target[:, None], torch.ones(len(target), 1)
        position = (target.double() + 0.5) * (self.old / self.new) - 0.5  # align_corners=False
        first = position.floor()
        fraction = (position - first).float()
        if self.kernel is Kernel.LINEAR:
            index = (first.long()[:, None] + torch.arange(2)).clamp(0, self.old - 1)
            return index, torch.stack([1.0 - fraction, fraction], dim=1)
        index = (first.long()[:, None] + torch.arange(-1, 3)).clamp(0, self.old - 1)
        distances = fraction[:, None] + torch.tensor([1.0, 0.0, -1.0, -2.0])
        return index, _cubic(distances.abs())


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel (1981) at distances of 0 to 2."""
    near = ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    far = A * (((x - 5.0) * x + 8.0) * x - 4.0)
    return torch.where(x <= 1.0, near, far)
