"""Tiled encode and decode whose result equals the untiled one, for networks with a finite receptive field.

Each tile is computed together with `radius` cells of its real surroundings, and the surroundings are cut off again.
Where the picture ends the context ends too, so the network's own padding acts there as it does untiled. No blending, no
seams, no shift of colour: the result differs from fn(z) by rounding only. It holds for convolutions, resampling and
activations; not for anything that mixes over the whole area (attention, norms over space).
"""

from collections.abc import Callable, Iterator

import torch

from ..errors import AlloSR2Error

Function = Callable[[torch.Tensor], torch.Tensor]
Window = Callable[[slice, slice], torch.Tensor]
"""Rows and columns of one item, (1, C, h, w): a slice of a stored map, or values made when they are asked for."""
Tick = Callable[[], None]
"""Called when a piece of the work is done: progress, and a place to stop."""


def window_of(z_1CHW: torch.Tensor) -> Window:
    """The windows of a stored map."""
    return lambda rows, cols: z_1CHW[:, :, rows, cols]


def exact_tiles(
    fn: Function,
    window: Window,
    height: int,
    width: int,
    tile: int,
    radius: int,
    scale: float,
    tick: Tick | None = None,
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """fn over one item, tile by tile, row by row: rows and columns of the result, and their values (1, C', r, c).

    Args:
        fn: maps (1, C, h, w) to (1, C', h * scale, w * scale).
        window: what fn is called with, by rows and columns of fn's input; asked for when the tile's turn comes.
        height, width: of the whole, in cells of the COARSER of the two grids, which are latent cells both ways. Rounded
            up, by fn too, where fn's input does not fill the last ones.
        tile: side of a tile in these cells. Memory for one call of fn: (tile + 2 radius)^2 of them.
        radius: how many of these cells an output can see beyond its own.
        scale: a whole number (decoder) or 1 / a whole number (encoder).
        tick: called after every tile.

    Raises:
        AlloSR2Error: an impossible size, or fn returns another shape.
    """
    fine_in, fine_out = _fine_cells(scale)
    if tile < 1 or radius < 0:
        raise AlloSR2Error(f"expected tile >= 1 and radius >= 0 cells, got {tile} and {radius}")
    columns = _spans(width, tile, radius)
    for rows in _spans(height, tile, radius):
        for cols in columns:
            y_1Chw = fn(window(rows.context(fine_in), cols.context(fine_in)))
            expected = (rows.cells * fine_out, cols.cells * fine_out)
            if y_1Chw.ndim != 4 or tuple(y_1Chw.shape[2:]) != expected:
                raise AlloSR2Error(f"expected {expected} cells from the network, got {tuple(y_1Chw.shape)}")
            core_1Chw = y_1Chw[:, :, rows.core_in_context(fine_out), cols.core_in_context(fine_out)]
            del y_1Chw
            yield rows.core(fine_out), cols.core(fine_out), core_1Chw
            if tick is not None:
                tick()


def exact_tile_count(height: int, width: int, tile: int) -> int:
    """How many tiles (and ticks) one item of height x width coarse cells takes."""
    return -(-height // tile) * -(-width // tile)


def _fine_cells(scale: float) -> tuple[int, int]:
    """Cells of (input, output) in one cell of the coarser grid."""
    if scale <= 0:
        raise AlloSR2Error(f"expected a scale above 0, got {scale}")
    factor = scale if scale >= 1 else 1.0 / scale
    if abs(factor - round(factor)) > 1e-6:
        raise AlloSR2Error(f"expected a whole scale or one over a whole number, got {scale}")
    return (1, round(factor)) if scale >= 1 else (round(factor), 1)


class _Span:
    """One tile along one axis in coarse cells: its core, and the context around it that the picture has."""

    def __init__(self, start: int, end: int, first: int, last: int) -> None:
        self.start, self.end, self.first, self.last = start, end, first, last
        self.cells = last - first

    def core(self, fine: int) -> slice:
        return slice(self.start * fine, self.end * fine)

    def context(self, fine: int) -> slice:
        return slice(self.first * fine, self.last * fine)

    def core_in_context(self, fine: int) -> slice:
        return slice((self.start - self.first) * fine, (self.end - self.first) * fine)


def _spans(size: int, tile: int, radius: int) -> list[_Span]:
    spans = []
    for start in range(0, size, tile):
        end = min(start + tile, size)
        spans.append(_Span(start=start, end=end, first=max(start - radius, 0), last=min(end + radius, size)))
    return spans
