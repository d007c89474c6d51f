"""A whole batch through `tiling.exact`, put together."""

import torch

from allosr2_core.tiling.exact import Function, Tick, exact_tiles, window_of


def exact_tiled(
    fn: Function, z_BCHW: torch.Tensor, tile: int, radius: int, scale: float, tick: Tick | None = None
) -> torch.Tensor:
    """fn(z), computed tile by tile, item by item; see `exact_tiles`."""
    down = round(max(1.0, 1.0 / scale)) if scale > 0 else 1
    height, width = z_BCHW.shape[2] // down, z_BCHW.shape[3] // down
    items = []
    for item in z_BCHW.split(1):
        whole: torch.Tensor | None = None
        for rows, cols, core_1Chw in exact_tiles(fn, window_of(item), height, width, tile, radius, scale, tick):
            if whole is None:
                up = round(max(1.0, scale))
                whole = core_1Chw.new_empty((1, core_1Chw.shape[1], height * up, width * up))
            whole[:, :, rows, cols] = core_1Chw
        assert whole is not None
        items.append(whole)
    return torch.cat(items)
