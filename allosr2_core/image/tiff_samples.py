"""The samples of a TIFF page: strips or tiles, unpacked to one array, whatever the depth.

Pillow knows no 16-bit grey with alpha, no float RGB, and 16-bit planes only wrongly: its decoders are used to inflate,
and the samples are taken apart here.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np

from .opening import pillow_picture
from .tiff_tags import TiffPage

_NONE, _LZW, _DEFLATE, _PACKBITS, _OLD_DEFLATE, _LZMA, _ZSTD = 1, 5, 8, 32773, 32946, 34925, 50000
INFLATED_HERE = frozenset((_NONE, _LZW, _DEFLATE, _PACKBITS, _OLD_DEFLATE, _LZMA, _ZSTD))
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


def read_samples(page: TiffPage, data: bytes, path: Path) -> np.ndarray:
    """(H, W, samples) as stored: unsigned integers of 8, 16, 32 or 64 bits (narrower ones not scaled up), or floats.

    Raises OSError when data is missing, ValueError and zlib.error when it is damaged.
    """
    planes = page.samples if page.planar else 1
    inside = page.samples // planes
    block_height, block_width = page.tile or (page.rows_per_strip, page.width)
    down, across = -(-page.height // block_height), -(-page.width // block_width)
    row_bytes = -(-block_width * inside * page.bits // 8)
    if len(page.offsets) < planes * down * across:
        raise OSError(f"image file is truncated ({len(page.offsets)} of {planes * down * across} blocks)")
    result = None
    for plane in range(planes):
        blocks = range(plane * down * across, (plane + 1) * down * across)
        heights = [block_height] * len(blocks)
        if page.tile is None:
            heights[-1] = page.height - block_height * (down - 1)
        rows = inflated(page, data, path, blocks, heights, row_bytes)
        values = _unpacked(_unpredicted(rows, page, inside), page, block_width, inside)
        if result is None:
            result = np.empty((page.height, page.width, page.samples), dtype=values.dtype)
        for number in range(len(blocks)):
            top, left = number // across * block_height, number % across * block_width
            height, width = min(block_height, page.height - top), min(block_width, page.width - left)
            block = values[number * block_height :][:height, :width]
            result[top : top + height, left : left + width, plane * inside : (plane + 1) * inside] = block
    if result is None:
        raise OSError("TIFF without samples")
    return result


def inflated(page: TiffPage, data: bytes, path: Path, blocks: range, heights: list[int], row_bytes: int) -> np.ndarray:
    """The blocks one below the other: (sum of heights, row_bytes) uint8. `blocks` are indices into page.offsets.

    Raises OSError when data is missing, ValueError and zlib.error when it is damaged.
    """
    if page.compression in (_LZW, _PACKBITS, _LZMA, _ZSTD):
        return _by_libtiff(page, data, path, blocks, heights, row_bytes)
    if page.compression == _NONE and sum(heights) * row_bytes > len(data):
        raise OSError(f"image file is truncated ({len(data)} of {sum(heights) * row_bytes} bytes)")
    rows = np.empty((sum(heights), row_bytes), dtype=np.uint8)
    top = 0
    for index, height in zip(blocks, heights, strict=True):
        wanted = height * row_bytes
        start = page.offsets[index]
        if page.compression == _NONE:
            block = data[start : start + wanted]
            if page.reversed_bits:
                block = _REVERSED[np.frombuffer(block, dtype=np.uint8)].tobytes()
        else:
            end = start + page.lengths[index] if index < len(page.lengths) else len(data)
            packed = data[start:end]
            if page.reversed_bits:
                packed = _REVERSED[np.frombuffer(packed, dtype=np.uint8)].tobytes()
            block = zlib.decompressobj().decompress(packed, wanted)
        if len(block) < wanted:
            raise OSError(f"image file is truncated ({len(block)} of {wanted} bytes of block {index})")
        rows[top : top + height] = np.frombuffer(block, dtype=np.uint8).reshape(height, row_bytes)
        top += height
    return rows


def _by_libtiff(
    page: TiffPage, data: bytes, path: Path, blocks: range, heights: list[int], row_bytes: int
) -> np.ndarray:
    """The file with one more directory, which calls the blocks an 8-bit grey picture as wide as a row has bytes."""
    if len(page.lengths) < blocks.stop:
        raise OSError(f"image file is truncated ({len(page.lengths)} of {blocks.stop} blocks)")
    offsets, lengths = page.offsets[blocks.start : blocks.stop], page.lengths[blocks.start : blocks.stop]
    for start, length in zip(offsets, lengths, strict=True):
        if start + length > len(data):
            raise OSError("image file is truncated")
    order = ">" if page.big_endian else "<"
    tables = b"".join(struct.pack(f"{order}{len(numbers)}I", *numbers) for numbers in (offsets, lengths))
    at = len(data) + len(data) % 2
    count = len(offsets)
    # One number stands in the entry itself.
    place = (offsets[0], lengths[0]) if count == 1 else (at, at + 4 * count)
    entries = [
        (256, 4, 1, row_bytes),
        (257, 4, 1, sum(heights)),
        (258, 3, 1, 8),
        (259, 3, 1, page.compression),
        (262, 3, 1, 1),
        (266, 3, 1, 2 if page.reversed_bits else 1),
        (273, 4, count, place[0]),
        (277, 3, 1, 1),
        (278, 4, 1, heights[0]),
        (279, 4, count, place[1]),
    ]
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, number, value in entries:
        directory += struct.pack(order + "HHI", tag, kind, number)
        directory += struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
    header = (b"MM\0*" if page.big_endian else b"II*\0") + struct.pack(order + "I", at + len(tables))
    body = data[len(header) :].ljust(at - len(header), b"\0")
    file = io.BytesIO(b"".join((header, body, tables, directory, bytes(4))))
    with pillow_picture(file, path, own_size=False) as picture:
        picture.load()
        return np.array(picture)


def _unpredicted(rows: np.ndarray, page: TiffPage, inside: int) -> np.ndarray:
    """Undo horizontal differences (2) or the floating point predictor (3); raw data has none."""
    if page.predictor == 1 or page.compression in (_NONE, _PACKBITS):
        return rows
    size = page.bits // 8
    if page.predictor == 2 and page.bits in (8, 16, 32, 64):
        values = rows.view(f"{'>' if page.big_endian else '<'}u{size}").reshape(len(rows), -1, inside)
        native = np.cumsum(values, axis=1, dtype=np.dtype(f"u{size}"))
        return native.astype(values.dtype).reshape(len(rows), -1).view(np.uint8)
    if page.predictor == 3 and page.sample_format == 3 and page.bits in (16, 32, 64):
        sums = np.cumsum(rows.reshape(len(rows), -1, inside), axis=1, dtype=np.uint8).reshape(len(rows), size, -1)
        big = np.ascontiguousarray(sums.transpose(0, 2, 1)).reshape(len(rows), -1)  # most significant byte first
        if page.big_endian:
            return big
        return np.ascontiguousarray(big.reshape(len(rows), -1, size)[..., ::-1]).reshape(len(rows), -1)
    raise ValueError(f"TIFF predictor {page.predictor} for {page.bits} bits is not supported")


def _unpacked(rows: np.ndarray, page: TiffPage, width: int, inside: int) -> np.ndarray:
    """(rows, width, inside) in native byte order."""
    shape = (len(rows), width, inside)
    if page.bits in (8, 16, 32, 64):
        kind = "f" if page.sample_format == 3 and page.bits > 8 else "u"
        stored = rows.view(f"{'>' if page.big_endian else '<'}{kind}{page.bits // 8}")
        return stored.astype(stored.dtype.newbyteorder("=")).reshape(shape)
    values = np.zeros((len(rows), width * inside), dtype=np.uint8 if page.bits <= 8 else np.uint16)
    for top in range(0, len(rows), 256):  # single bits of a large picture need eight times its memory
        bits = np.unpackbits(rows[top : top + 256], axis=1)[:, : width * inside * page.bits]
        bits = bits.reshape(len(bits), -1, page.bits)
        for position in range(page.bits):
            values[top : top + 256] |= bits[..., position].astype(values.dtype) << (page.bits - 1 - position)
    return values.reshape(shape)
