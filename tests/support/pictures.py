"""Pictures the tests make: as arrays, as bytes and as files."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = [(1, 1), (1, 7), (3, 5), (5, 3), (8, 8), (17, 31)]


def photo(height: int = 13, width: int = 21, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png16(values: np.ndarray, color_type: int, extra: bytes = b"") -> bytes:
    """A 16-bit PNG, made by hand: (H, W, C) uint16; color_type 0 grey, 2 RGB, 4 grey+alpha, 6 RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_photo(path: Path, height: int = 9, width: int = 14, mode: str = "RGB", seed: int = 0) -> Path:
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values if channels > 1 else values[..., 0]).save(path)
    return path


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.height, picture.width


def soften(source: Path, target: Path, multiple: int = 4) -> None:
    """The picture cut to sides in multiples of so many pixels, with less contrast.

    Other sides the node pads and the sampler does not; and core's bicubic leaves what overshoots 0..1, where the node
    takes 0 or 1.
    """
    with Image.open(source) as picture:
        width, height = (side // multiple * multiple for side in picture.size)
        picture.convert("RGB").crop((0, 0, width, height)).point(lambda value: 70 + 0.45 * value).save(target)
