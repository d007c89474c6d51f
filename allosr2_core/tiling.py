"""Tiles with feathered overlaps: one combinator for the flow step and for any decoder that is not local.

The weights of all tiles sum to one at every cell. The blend is kept as a running weighted mean, so where the tiles
agree the result is what each of them says, to the last bit.
For networks with a finite receptive field use exact_decode.py instead: it needs no blending.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .errors import AlloSR2Error


def plan_tiles(size: int, tile: int, overlap: int) -> tuple[int, ...]:
    """First cells of the tiles that cover `size` cells; neighbours share at least `overlap` cells.

    The last tile is shifted inward, so every tile has the full `tile` cells (or `size`, if that is less).
    Raises AlloSR2Error unless size >= 1, tile >= 1 and 0 <= overlap < tile.
    """
    if size < 1 or tile < 1 or not 0 <= overlap < tile:
        raise AlloSR2Error(f"expected size >= 1, tile >= 1, 0 <= overlap < tile; got {size}, {tile}, {overlap}")
    if tile >= size:
        return (0,)
    return (*range(0, size - tile, tile - overlap), size - tile)


def tile_weights(starts: tuple[int, ...], tile: int, size: int) -> torch.Tensor:
    """(tiles, size) float64: share of each tile in each cell, summing to one over the tiles.

    Shares fall linearly to the tile's edge over whatever it shares with its neighbour, and stay whole at the border of
    the picture.
    """
    cells = torch.arange(size, dtype=torch.float64)
    raw = torch.zeros(len(starts), size, dtype=torch.float64)
    for i, start in enumerate(starts):
        end = start + tile
        share = torch.ones(size, dtype=torch.float64)
        if i > 0:
            shared = max(starts[i - 1] + tile - start, 1)
            share = torch.minimum(share, (cells - start + 0.5) / shared)
        if i + 1 < len(starts):
            shared = max(end - starts[i + 1], 1)
            share = torch.minimum(share, (end - cells - 0.5) / shared)
        inside = (cells >= start) & (cells < end)
        raw[i] = torch.where(inside, share, torch.zeros_like(share))
    return raw / raw.sum(dim=0, keepdim=True)


@dataclass(frozen=True)
class Box:
    """One tile: rows top..bottom, columns left..right (ends excluded)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class TilePlan:
    """Tiles of a height x width grid, row by row. All lengths in cells of that grid."""

    height: int
    width: int
    tile_height: int
    tile_width: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @classmethod
    def make(cls, height: int, width: int, tile: int, overlap: int) -> "TilePlan":
        tops, lefts = plan_tiles(height, tile, overlap), plan_tiles(width, tile, overlap)
        return cls(height, width, min(tile, height), min(tile, width), tops, lefts)

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def __iter__(self) -> Iterator[Box]:
        for top in self.tops:
            for left in self.lefts:
                yield Box(top, top + self.tile_height, left, left + self.tile_width)

    def scaled(self, scale: float) -> "TilePlan":
        """The same plan on a grid `scale` times as fine. Raises AlloSR2Error unless every length stays whole."""

        def whole(length: int) -> int:
            result = round(length * scale)
            if abs(result - length * scale) > 1e-6 or (length > 0 and result < 1):
                raise AlloSR2Error(f"expected sizes and tile starts that times {scale} are whole, got {length}")
            return result

        return TilePlan(
            height=whole(self.height),
            width=whole(self.width),
            tile_height=whole(self.tile_height),
            tile_width=whole(self.tile_width),
            tops=tuple(map(whole, self.tops)),
            lefts=tuple(map(whole, self.lefts)),
        )

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Vertical (tile rows, height) and horizontal (tile columns, width) shares; their products sum to one."""
        return (
            tile_weights(self.tops, self.tile_height, self.height),
            tile_weights(self.lefts, self.tile_width, self.width),
        )


def tile_count(height: int, width: int, tile: int, overlap: int) -> int:
    """How many tiles (and ticks) one item of height x width cells takes."""
    return len(plan_tiles(height, tile, overlap)) * len(plan_tiles(width, tile, overlap))


def tiled_apply(
    fn: Callable[[torch.Tensor], torch.Tensor],
    x_BCHW: torch.Tensor,
    tile: int,
    overlap: int,
    scale_out: float = 1.0,
    out_channels: int | None = None,
    tick: Callable[[], None] | None = None,
) -> torch.Tensor:
    """fn over overlapping tiles, blended; item by item, so a result does not depend on its place in the batch.

    fn maps (1, C, h, w) to (1, C', h * scale_out, w * scale_out). tile, overlap: cells of x. out_channels: C' if it is
    to be checked. tick: called after every tile (progress, interrupt). The mean is kept in float32 on x's
    device, the result has the dtype fn returns. A picture that fits one tile gives exactly fn(x).
    Raises AlloSR2Error for impossible tiles or when fn returns another shape.
    """
    if x_BCHW.ndim != 4 or x_BCHW.numel() == 0:
        raise AlloSR2Error(f"expected a tensor (B, C, H, W), got {tuple(x_BCHW.shape)}")
    plan = TilePlan.make(x_BCHW.shape[2], x_BCHW.shape[3], tile, overlap)
    out_plan = plan.scaled(scale_out)
    items = [_tiled_item(fn, item_CHW[None], plan, out_plan, out_channels, tick) for item_CHW in x_BCHW]
    return torch.cat(items)


def _tiled_item(
    fn: Callable[[torch.Tensor], torch.Tensor],
    x_1CHW: torch.Tensor,
    plan: TilePlan,
    out_plan: TilePlan,
    out_channels: int | None,
    tick: Callable[[], None] | None,
) -> torch.Tensor:
    vertical, horizontal = (w.to(device=x_1CHW.device, dtype=torch.float32) for w in out_plan.weights())
    total_1CHW: torch.Tensor | None = None
    dtype = x_1CHW.dtype
    seen_HW = x_1CHW.new_zeros((out_plan.height, out_plan.width), dtype=torch.float32)  # weight so far
    columns = len(plan.lefts)
    for index, (box, out_box) in enumerate(zip(plan, out_plan, strict=True)):
        rows, cols = box.slices
        y_1Chw = fn(x_1CHW[:, :, rows, cols])
        channels = y_1Chw.shape[1] if out_channels is None else out_channels
        expected = (1, channels, out_plan.tile_height, out_plan.tile_width)
        if tuple(y_1Chw.shape) != expected:
            raise AlloSR2Error(f"expected a tile of shape {expected} from the network, got {tuple(y_1Chw.shape)}")
        if tick is not None:
            tick()
        if len(plan) == 1:
            return y_1Chw
        if total_1CHW is None:
            dtype = y_1Chw.dtype
            total_1CHW = x_1CHW.new_zeros((1, channels, out_plan.height, out_plan.width), dtype=torch.float32)
        rows, cols = out_box.slices
        weight_hw = vertical[index // columns, rows, None] * horizontal[index % columns, None, cols]
        seen_HW[rows, cols] += weight_hw
        mean_1Chw = total_1CHW[:, :, rows, cols]  # a view: lerp_ writes the total
        mean_1Chw.lerp_(y_1Chw.to(device=mean_1Chw.device, dtype=torch.float32), weight_hw / seen_HW[rows, cols])
    if total_1CHW is None:
        raise AlloSR2Error("expected at least one tile, got none")
    return total_1CHW.to(dtype)
