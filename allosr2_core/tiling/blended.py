"""Tiles with feathered overlaps: one combinator for the flow step and for any decoder that is not local.

The weights of all tiles sum to one at every cell. The blend is kept as a running weighted mean, so where the tiles
agree the result is what each of them says, to the last bit.
The result is not that of one piece: a tile knows nothing beyond its edge. Networks that see a few cells need no
blending: exact.py. The embedded U-Net sees 116 cells on every side; that much context around each tile would be several
times the work, so its tiles are blended (`python -m benchmarks exactness` says how far that is from one piece).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ..errors import AlloSR2Error


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

    Shares fall to the tile's edge over whatever it shares with its neighbour, as a raised cosine (no kink where the
    overlap begins or ends), and stay whole at the border of the picture.
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
        share = 0.5 - 0.5 * torch.cos(torch.pi * share.clamp(0.0, 1.0))
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

    @classmethod
    def even(cls, height: int, width: int, most: int, overlap: int, multiple: int) -> "TilePlan":
        """As few tiles of at most `most` cells as cover the grid, all alike and evenly spread: the least work.

        Sides and starts are multiples of `multiple`, as are height, width, most and overlap (AlloSR2Error if not).
        """
        lengths = (height, width, most, overlap)
        if any(length % multiple for length in lengths) or not 0 <= overlap < most:
            raise AlloSR2Error(f"expected multiples of {multiple} and an overlap below the tile; got {lengths}")
        (tops, tile_height), (lefts, tile_width) = (_even(n, most, overlap, multiple) for n in (height, width))
        return cls(height, width, tile_height, tile_width, tops, lefts)

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


def _even(size: int, most: int, overlap: int, multiple: int) -> tuple[tuple[int, ...], int]:
    """First cells of evenly spread tiles, and their length."""
    if size <= most:
        return (0,), size
    count = -(-(size - overlap) // (most - overlap))
    length = -(-(size + (count - 1) * overlap) // (count * multiple)) * multiple
    last = size - length
    return tuple(i * last // (count - 1) // multiple * multiple for i in range(count)), length


def tile_count(height: int, width: int, tile: int, overlap: int) -> int:
    """How many tiles (and ticks) one item of height x width cells takes."""
    return len(plan_tiles(height, tile, overlap)) * len(plan_tiles(width, tile, overlap))


def tiled_apply(
    fn: Callable[[torch.Tensor], torch.Tensor],
    x_BCHW: torch.Tensor,
    tile: int,
    overlap: int,
    scale_out: float = 1.0,
    tick: Callable[[], None] | None = None,
) -> torch.Tensor:
    """fn over overlapping tiles, blended: `apply_plan` with tiles of `tile` cells that share `overlap`."""
    if x_BCHW.ndim != 4 or x_BCHW.numel() == 0:
        raise AlloSR2Error(f"expected a tensor (B, C, H, W), got {tuple(x_BCHW.shape)}")
    plan = TilePlan.make(x_BCHW.shape[2], x_BCHW.shape[3], tile, overlap)
    return apply_plan(fn, x_BCHW, plan, scale_out, tick)


def apply_plan(
    fn: Callable[[torch.Tensor], torch.Tensor],
    x_BCHW: torch.Tensor,
    plan: TilePlan,
    scale_out: float = 1.0,
    tick: Callable[[], None] | None = None,
    out_BCHW: torch.Tensor | None = None,
) -> torch.Tensor:
    """fn over the tiles of a plan, blended; item by item, so a result does not depend on its place in the batch.

    fn maps (1, C, h, w) to (1, C', h * scale_out, w * scale_out). tick: called after every tile (progress, interrupt).
    out_BCHW: float32 memory for the result, which then has that type; otherwise it is on the device of x and has the
    type of what fn returns. The mean is kept in float32. A picture that fits one tile gives exactly fn(x).
    Raises AlloSR2Error for a plan of another size or when fn returns another shape.
    """
    if x_BCHW.ndim != 4 or tuple(x_BCHW.shape[2:]) != (plan.height, plan.width):
        raise AlloSR2Error(f"expected (B, C, {plan.height}, {plan.width}), got {tuple(x_BCHW.shape)}")
    out_plan = plan.scaled(scale_out)
    dtype, mean_BCHW, blended = torch.float32, out_BCHW, len(plan) > 1
    if mean_BCHW is not None and blended:
        mean_BCHW.zero_()
    for number in range(x_BCHW.shape[0]):
        for box, out_box, share_hw in zip(plan, out_plan, _running_shares(out_plan), strict=True):
            y_1Chw = fn(x_BCHW[number : number + 1, :, *box.slices])
            channels = y_1Chw.shape[1] if mean_BCHW is None else mean_BCHW.shape[1]
            expected = (1, channels, out_plan.tile_height, out_plan.tile_width)
            if tuple(y_1Chw.shape) != expected:
                raise AlloSR2Error(f"expected a tile of shape {expected} from the network, got {tuple(y_1Chw.shape)}")
            if mean_BCHW is None:
                dtype = y_1Chw.dtype
                shape = (x_BCHW.shape[0], channels, out_plan.height, out_plan.width)
                mean_BCHW = x_BCHW.new_zeros(shape, dtype=torch.float32 if blended else dtype)
            part_1Chw = mean_BCHW[number : number + 1, :, *out_box.slices]  # a view: what follows writes the mean
            if blended:
                part_1Chw.lerp_(y_1Chw.to(part_1Chw), share_hw.to(part_1Chw))
            else:
                part_1Chw.copy_(y_1Chw)
            if tick is not None:
                tick()
    if mean_BCHW is None:
        raise AlloSR2Error("expected at least one tile, got none")
    return mean_BCHW if out_BCHW is not None else mean_BCHW.to(dtype)


def _running_shares(plan: TilePlan) -> Iterator[torch.Tensor]:
    """(h, w) float64 for each tile: its weight in parts of the weights so far, its own with them."""
    vertical, horizontal = plan.weights()
    above, up_to_here = vertical.cumsum(dim=0) - vertical, horizontal.cumsum(dim=0)
    for number, box in enumerate(plan):
        row, column = divmod(number, len(plan.lefts))
        rows, cols = box.slices
        share_h1, seen_h1 = vertical[row, rows, None], above[row, rows, None]
        yield share_h1 * horizontal[column, cols] / (seen_h1 + share_h1 * up_to_here[column, cols])
