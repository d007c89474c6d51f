"""The pipeline of upscale.py on one picture in bands of rows: the same tiles, with memory for a band of each map.

The output is written band by band. Decoding a row of tiles asks for the rows of z_H it sees, those ask the flow for
a row of its tiles, and those the encoder; what nobody will ask for again is let go. Only the time t* needs all of z_L:
where that is small it is kept, else it is encoded twice (a tenth of the work) and the SNR head takes it in by tiles.

For networks with a finite receptive field (the embedded checkpoint's); others see each picture whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .exact_decode import exact_rows
from .tiling import TilePlan, blended_rows

Tick = Callable[[], None]
KEPT_CELLS = 2**16
"""Latent cells of a picture up to which z_L is kept: a megapixel of result, 4 MiB."""


class Rows:
    """A map [1, C, height, W] that is made from the top, and of which only a band is kept."""

    def __init__(self, made: Iterator[Tensor], height: int) -> None:
        self.height = height
        self._made, self._first, self._parts = made, 0, list[Tensor]()

    def window(self, rows: slice, cols: slice = slice(None)) -> Tensor:
        """Some rows and columns, as far as there are rows; not of those that `forget` let go."""
        last = min(rows.stop, self.height)
        while self._first + sum(part.shape[2] for part in self._parts) < last:
            self._parts.append(next(self._made))
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts, dim=2)]
        return self._parts[0][:, :, rows.start - self._first : last - self._first, cols]

    def forget(self, before: int) -> None:
        """Let go of the rows above one."""
        while self._parts and self._first + self._parts[0].shape[2] <= before:
            self._first += self._parts.pop(0).shape[2]
        if self._parts and before > self._first:
            self._parts[0] = self._parts[0][:, :, before - self._first :].clone()
            self._first = before


@dataclass(frozen=True)
class Part:
    """A network as a function of one item, and how it may be cut."""

    run: Callable[[Tensor], Tensor]
    radius: int
    """Context in cells of the coarser of its two grids."""
    scale: float
    """Cells of output for one of input."""


def restored_rows(
    step: Callable[[Tensor], Tensor], z_lr: Rows, plan: TilePlan, realism: float, tick: Tick | None
) -> Iterator[Tensor]:
    """z_H from the top: the blended one step, and realism r for how far it leaves the input."""
    first = 0
    for z_hat in blended_rows(step, z_lr.window, plan, tick=tick):
        z = z_lr.window(slice(first, first + z_hat.shape[2]))
        yield z + realism * (z_hat - z)
        first += z_hat.shape[2]
        z_lr.forget(first)


def decoded_rows(part: Part, z_hr: Rows, height: int, width: int, tile: int, tick: Tick | None) -> Iterator[Tensor]:
    """Pixels [1, 3, R, W] from the top."""
    first = 0
    for pixels in exact_rows(part.run, z_hr.window, height, width, tile, part.radius, part.scale, tick):
        yield pixels
        first += tile
        z_hr.forget(first - part.radius)


def whole_map(part: Part, z_lr: Rows, height: int, width: int, tile: int) -> Tensor:
    """A map of low resolution of all of z_L, e.g. the SNR head's features; 1 / part.scale cells to one of its."""
    fine = round(1.0 / part.scale)
    maps, step, first = [], max(1, tile // fine), 0
    for features in exact_rows(
        part.run, z_lr.window, -(-height // fine), -(-width // fine), step, part.radius, part.scale
    ):
        maps.append(features)
        first += step
        z_lr.forget((first - part.radius) * fine)
    return torch.cat(maps, dim=2)
