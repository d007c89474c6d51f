"""YCbCr of a TIFF that is no JPEG: chroma for blocks of pixels, TIFF 6.0 section 21."""

from pathlib import Path

import numpy as np

from .tiff_samples import inflated
from .tiff_tags import TiffPage


def read_ycbcr(page: TiffPage, data: bytes, path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Each chroma sample stands for its whole block. Raises OSError when data is missing."""
    if page.planar or page.predictor != 1 or page.samples != 3:
        raise ValueError("YCbCr TIFF in planes, with a predictor or with alpha is not supported")
    h, v = page.subsampling
    if h not in (1, 2, 4) or v not in (1, 2, 4):
        raise ValueError(f"YCbCr TIFF with chroma for {h}x{v} pixels is not supported")
    block_height, block_width = page.tile or (page.rows_per_strip, page.width)
    down, across = -(-page.height // block_height), -(-page.width // block_width)
    if len(page.offsets) < down * across:
        raise OSError(f"image file is truncated ({len(page.offsets)} of {down * across} blocks)")
    units_across, units_down = -(-block_width // h), -(-block_height // v)
    heights = [units_down] * (down * across)
    if page.tile is None:
        heights[-1] = -(-(page.height - block_height * (down - 1)) // v)
    rows = inflated(page, data, path, range(down * across), heights, units_across * (h * v + 2))
    result = np.empty((page.height, page.width, 3), dtype=np.uint8)
    for number in range(down * across):
        units = rows[number * units_down :][: heights[number]].reshape(heights[number], units_across, h * v + 2)
        top, left = number // across * block_height, number % across * block_width
        height, width = min(block_height, page.height - top), min(block_width, page.width - left)
        luma = units[..., : h * v].reshape(*units.shape[:2], v, h).swapaxes(1, 2).reshape(len(units) * v, -1)
        chroma = units[..., h * v :].repeat(v, axis=0).repeat(h, axis=1)
        ycbcr = np.concatenate((luma[..., None], chroma), axis=-1)[:height, :width]
        result[top : top + height, left : left + width] = _to_rgb(ycbcr, page)
    return result


def _to_rgb(ycbcr: np.ndarray, page: TiffPage) -> np.ndarray:
    black = np.array(page.reference[0::2], dtype=np.float32)
    white = np.array(page.reference[1::2], dtype=np.float32)
    span = np.array((255, 127, 127), dtype=np.float32) / np.where(white == black, 1, white - black)
    y, cb, cr = np.moveaxis((ycbcr - black) * span, -1, 0)
    red_part, green_part, blue_part = page.luma
    red = y + cr * (2 - 2 * red_part)
    blue = y + cb * (2 - 2 * blue_part)
    green = (y - blue_part * blue - red_part * red) / green_part
    return np.stack((red, green, blue), axis=-1).round().clip(0, 255).astype(np.uint8)
