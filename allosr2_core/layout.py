"""The sizes a picture goes through, as it came, as it is restored, as it is handed back; and the tiles of each part."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .checkpoint.config import AlloSR2Config
from .errors import AlloSR2Error
from .image.geometry import pad_to, padded_length, target_size
from .tiling.blended import TilePlan
from .tiling.exact import Window, exact_tile_count, window_of

PAD_MULTIPLE_CELLS = 4
"""Pictures are padded to this many latent cells: the embedded U-Net's stride."""
LARGEST_DECODE = 256
"""Side of the largest decode tile, px."""
MIN_SIDE = 64
"""Smaller pictures are padded to this, px: a network that has seen no border closer than that invents at it."""


def stride(config: AlloSR2Config) -> int:
    """Both sides of a picture are padded to multiples of this, px."""
    return PAD_MULTIPLE_CELLS * config.latent_downscale


@dataclass(frozen=True)
class Layout:
    """Sizes in px. A checkpoint restores at the factor it was trained for, whatever factor the result has.

    The result is made of the restored picture: it is that, or a reduction or an enlargement of it. Below a factor of 1
    the input is reduced first, so that no more is restored than the result can show.
    """

    input_height: int
    input_width: int
    height: int
    width: int
    """Of the result: exactly round(H scale) x round(W scale), or the long edge that was given."""
    source_height: int
    source_width: int
    """Of what is enlarged: the input's, or the result's where that is smaller."""
    restored_height: int
    restored_width: int
    """Of the picture the network restores."""
    padded_height: int
    padded_width: int
    """The same with what is mirrored at the bottom and the right."""

    @classmethod
    def of(
        cls,
        height: int,
        width: int,
        config: AlloSR2Config,
        scale: float | None = None,
        long_edge: int | None = None,
    ) -> Layout:
        """For an input of height x width px; `image.geometry.target_size` says what it raises."""
        result = target_size(height, width, scale=scale, long_edge=long_edge)
        source = (min(height, result[0]), min(width, result[1]))
        restored = (source[0] * config.scale, source[1] * config.scale)
        padded = [padded_length(side, stride(config), MIN_SIDE) for side in restored]
        return cls(height, width, *result, *source, *restored, *padded)

    @classmethod
    def plain(cls, height: int, width: int) -> Layout:
        """Of latents that are only decoded: all sizes are one."""
        return cls(*(height, width) * 5)

    def padded(self, image_BHWC: Tensor) -> Tensor:
        """Pictures of the restored size as the network sees them."""
        return pad_to(image_BHWC, self.padded_height, self.padded_width)

    def window(self, image_1HWC: Tensor) -> Window:
        """A picture of the restored size and in [0, 1], as `pipeline.encode` asks for it."""
        return window_of(self.padded(image_1HWC).movedim(-1, 1).float() * 2.0 - 1.0)

    @property
    def resampled(self) -> bool:
        """Whether the result has another size than the restored picture."""
        return (self.height, self.width) != (self.restored_height, self.restored_width)

    @property
    def detail(self) -> float:
        """How much of its lost detail a result gets back: all up to half the trained factor, none at that factor."""
        part = (self.height * self.width / (self.restored_height * self.restored_width)) ** 0.5
        return min(1.0, max(0.0, 2.0 - 2.0 * part))

    def cells(self, config: AlloSR2Config) -> tuple[int, int]:
        """Height and width of the padded picture's latents."""
        return self.padded_height // config.latent_downscale, self.padded_width // config.latent_downscale


# --- tiles: sides and overlaps in px of the restored picture, 0 for the checkpoint's own -----------------------------


def tile_cells(config: AlloSR2Config, tile: int) -> int:
    """Tile side in latent cells; 0 means the checkpoint's own."""
    if tile < 0:
        raise AlloSR2Error(f"expected a tile of 0 (automatic) or more pixels; got {tile}")
    size = tile or config.tile_size
    return max(PAD_MULTIPLE_CELLS, size // stride(config) * PAD_MULTIPLE_CELLS)


def decode_cells(config: AlloSR2Config, tile: int) -> int:
    """Side of a decode tile in latent cells: the decoder's widest maps have pixels, a smaller tile saves most."""
    return min(tile_cells(config, tile), max(PAD_MULTIPLE_CELLS, LARGEST_DECODE // config.latent_downscale))


def flow_plan(config: AlloSR2Config, height: int, width: int, tile: int, overlap: int) -> TilePlan:
    """The tiles of the flow on latents of height x width cells.

    tile, overlap: px of the restored picture; tile 0 is automatic. A network that takes tiles of any size gets them all
    alike, up to a quarter larger than the checkpoint's own; others get tiles of exactly their size, the last shifted
    inward.
    """
    if overlap < 0:
        raise AlloSR2Error(f"expected an overlap of 0 or more pixels; got {overlap}")
    cells = tile_cells(config, tile)
    shared = min(-(-overlap // config.latent_downscale), cells // 2)
    if not config.is_local_flow or height % PAD_MULTIPLE_CELLS or width % PAD_MULTIPLE_CELLS:
        return TilePlan.make(height, width, cells, min(shared, cells - 1))
    most = cells if tile else cells + cells // 4 // PAD_MULTIPLE_CELLS * PAD_MULTIPLE_CELLS
    shared = min(-(-shared // PAD_MULTIPLE_CELLS) * PAD_MULTIPLE_CELLS, most - PAD_MULTIPLE_CELLS)
    return TilePlan.even(height, width, most, shared, PAD_MULTIPLE_CELLS)


def count_ticks(layout: Layout, config: AlloSR2Config, tile: int, overlap: int) -> tuple[int, int, int]:
    """How often `tick` is called per image in encode, flow and decode."""
    height, width = layout.cells(config)
    flow = len(flow_plan(config, height, width, tile, overlap))
    if not config.is_local_codec:
        return 1, flow, 1
    encode_tile, decode_tile = tile_cells(config, tile), decode_cells(config, tile)
    return exact_tile_count(height, width, encode_tile), flow, exact_tile_count(height, width, decode_tile)
