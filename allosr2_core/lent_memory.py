"""The latents of a picture, kept in the memory of its result until the decoder fills that.

A result has 12 bytes a pixel; z_L and z_H of an autoencoder with 16 channels for 4 x 4 pixels have 4 each. They lie at
its end, and it is written from the top: only near the bottom does the picture reach the rows of z_H that it is still
made of, and those few (a row of tiles) are moved out of the way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .image.resample import Placed


def lend(result_HWC: Tensor, shapes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """Maps [1, C, h, w] for some (C, h, w), channels last and row after row, with values to be written first.

    The first lies at the end of the result's memory, each of the others before the one before; a map that no longer
    fits there has memory of its own. The result is contiguous, float32.
    """
    memory, maps, end = result_HWC.view(-1), list[Tensor](), result_HWC.numel()
    for channels, height, width in shapes:
        size = channels * height * width
        own = memory[end - size : end] if size <= end else memory.new_empty(size)
        end -= size if size <= end else 0
        maps.append(own.view(1, height, width, channels).movedim(-1, 1))
    return maps


class Receding(Placed):
    """A map that was lent its memory by the result that is now made from it, from the top: its windows, and the sink.

    Args:
        z_1Chw: the map.
        result_HWC: (H, W, 3 or 4); the pieces go into the first three channels.
        down: pixels along one side of a cell of the map.
        radius: cells around a piece that it is made of.
    """

    def __init__(self, z_1Chw: Tensor, result_HWC: Tensor, down: int, radius: int) -> None:
        super().__init__(result_HWC[..., :3])
        self.z, self.whole_HWC, self.down, self.radius, self.first = z_1Chw, result_HWC, down, radius, 0

    def window(self, rows: slice, cols: slice) -> Tensor:
        """Some rows and columns; of the rows, those that the pieces to come are made of."""
        return self.z[:, :, rows.start - self.first : rows.stop - self.first, cols]

    def put(self, top: int, left: int, piece_hwC: Tensor) -> None:
        """One piece, row by row from the top; rows of the map that it would overwrite are moved out of the way."""
        height, width = self.whole_HWC.shape[:2]
        bottom, right = top + piece_hwC.shape[0], left + piece_hwC.shape[1]
        if bottom < height or right < width:  # after the last piece the map is not asked for
            self._make_room(min(bottom, height), max(0, top // self.down - self.radius))
        super().put(top, left, piece_hwC)

    def _make_room(self, written: int, needed: int) -> None:
        """Before the result's rows up to `written` (excluded) are written, with the map's from `needed` to be kept."""
        kept, result = self.z[:, :, needed - self.first :], self.whole_HWC
        lent = kept.untyped_storage().data_ptr() == result.untyped_storage().data_ptr()
        if lent and kept.data_ptr() < result.data_ptr() + written * result[0].numel() * kept.element_size():
            self.z, self.first = kept.clone(memory_format=torch.channels_last), needed
