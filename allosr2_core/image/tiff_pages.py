"""The pages of a TIFF: how their samples are laid out, and the samples as they are stored, whatever the depth.

Pillow knows no 16-bit grey with alpha, no float RGB, 16-bit colour at 8 bits only and 16-bit planes wrongly: it
inflates the strips and tiles, and the samples are taken apart here.
"""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ..errors import AlloSR2Error
from .metadata import clean_exif
from .opening import pillow_picture
from .picture_file import FileInfo

_NONE, _LZW, _DEFLATE, _PACKBITS, _OLD_DEFLATE, _LZMA, _ZSTD = 1, 5, 8, 32773, 32946, 34925, 50000
INFLATED_HERE = frozenset((_NONE, _LZW, _DEFLATE, _PACKBITS, _OLD_DEFLATE, _LZMA, _ZSTD))
_FLOAT = 3
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_MOST_PAGES = 10000
_MOST_TAGS, _MOST_NUMBERS = 65535, 1 << 22
_PRIVATE, _PROFILE = 32768, 34675
_BYTES = (1, 2, 6, 7)  # kinds of tags that stay bytes: BYTE, ASCII, SBYTE, UNDEFINED
_MOST_HELD = 1 << 23  # numbers and bytes of all directories; a hostile file has them all point at the same ones
_DNG_VERSION = 50706


class TiffPage:
    """One picture. Tags by the names of TIFF 6.0, missing ones with its defaults."""

    def __init__(self, tags: ImageFileDirectory_v2, index: int, described: Image.Exif, name: str) -> None:
        """index: among all directories of the file, as Pillow counts. Raises AlloSR2Error for what is no picture."""
        if _DNG_VERSION in tags:
            raise AlloSR2Error(
                f"{name}: expected a picture, got camera raw data (DNG); develop it to TIFF or PNG first"
            )
        self.index = index
        self.width, self.height = _number(tags, 256, 0), _number(tags, 257, 0)
        self.compression = _number(tags, 259, 1)
        self.photometric = _number(tags, 262, 6 if self.compression == 6 else 0)
        self.samples = _number(tags, 277, 3 if self.compression == 6 else 1)
        bits, formats = _numbers(tags, 258) or (1,), _numbers(tags, 339) or (1,)
        if self.width < 1 or self.height < 1 or not 1 <= self.samples <= 32:
            raise SyntaxError(f"TIFF of {self.width}x{self.height} px with {self.samples} samples a pixel")
        if len(set(bits[: self.samples])) > 1 or len(set(formats[: self.samples])) > 1:
            raise AlloSR2Error(
                f"{name}: expected the same kind of sample in all channels, got {bits} bits, kinds {formats}"
            )
        self.bits, self.sample_format = bits[0], formats[0]
        self.extra = _numbers(tags, 338)
        self.planar = _number(tags, 284, 1) == 2 and self.samples > 1
        self.predictor = _number(tags, 317, 1)
        self.reversed_bits = _number(tags, 266, 1) == 2
        rows = min(_number(tags, 278, self.height) or self.height, self.height)
        self.tiled = 324 in tags or 322 in tags
        self.block = (_number(tags, 323, 0), _number(tags, 322, 0)) if self.tiled else (rows, self.width)
        # Tiles are filled up at the right and bottom edge; far larger than the picture they are damage.
        if min(self.block) < 1 or self.block[0] * self.block[1] > 4 * self.width * self.height + (1 << 20):
            raise SyntaxError(f"TIFF tiles of {self.block[1]}x{self.block[0]} px")
        self.offsets = _numbers(tags, 324) or _numbers(tags, 273)
        self.lengths = _numbers(tags, 325) or _numbers(tags, 279)
        self.colour_map = _numbers(tags, 320)
        self.big_endian = described.endian == ">"
        exif = clean_exif(described)
        self.info = FileInfo(
            exif=exif.block,
            xmp=_blob(tags, 700),
            dpi=exif.dpi,
            icc_profile=_blob(tags, 34675),
            orientation=exif.orientation,
            notes=exif.notes,
        )

    @property
    def held(self) -> int:
        """About how many numbers and bytes it keeps."""
        return (
            len(self.offsets)
            + len(self.lengths)
            + len(self.colour_map)
            + len(self.info.exif)
            + len(self.info.xmp)
            + len(self.info.icc_profile)
        )


def read_pages(data: bytes, name: str) -> tuple[tuple[TiffPage, ...], int]:
    """The pages, and how many directories (thumbnails, masks) are none. Raises AlloSR2Error for what is no picture."""
    big = data[2:4] in (b"+\0", b"\0+")
    file = io.BytesIO(data)
    directory = ImageFileDirectory_v2(data[: 16 if big else 8])
    following, seen = directory.next, set()
    pages: list[TiffPage] = []
    left_out: list[TiffPage] = []
    held = 0
    while following and following not in seen and len(seen) < _MOST_PAGES:
        seen.add(following)
        if following >= len(data):
            raise SyntaxError(f"TIFF directory at byte {following} of {len(data)}")
        _check_counts(data, following, big)
        file.seek(following)
        directory.load(file)
        described = Image.Exif()
        described.endian, described.bigtiff = "<" if data[:2] == b"II" else ">", big
        described.load_from_fp(file, following)
        page = TiffPage(directory, len(seen) - 1, described, name)
        held += page.held
        if held > max(_MOST_HELD, len(data)):
            raise SyntaxError(f"TIFF directories that say more than the file holds ({held} of {len(data)} bytes)")
        (left_out if _number(directory, 254, 0) & (_REDUCED | _MASK) else pages).append(page)
        following = directory.next
    if not pages:
        pages, left_out = left_out[:1], left_out[1:]
    if not pages:
        raise SyntaxError("TIFF without a picture")
    return tuple(pages), len(left_out)


def _check_counts(data: bytes, at: int, big: bool) -> None:
    """SyntaxError for a tag with more numbers than the largest picture has blocks: each becomes a Python object."""
    order = "<" if data[:2] == b"II" else ">"
    count, first, entry = (f"{order}Q", 8, f"{order}HHQ8x") if big else (f"{order}H", 2, f"{order}HHI4x")
    if at + first > len(data):
        return
    size = struct.calcsize(entry)
    entries = min(struct.unpack_from(count, data, at)[0], (len(data) - at - first) // size, _MOST_TAGS)
    for tag, kind, numbers in struct.iter_unpack(entry, data[at + first : at + first + entries * size]):
        if (tag < _PRIVATE or tag == _PROFILE) and kind not in _BYTES and numbers > _MOST_NUMBERS:
            raise SyntaxError(f"TIFF tag {tag} of {numbers} numbers")


def read_samples(page: TiffPage, data: bytes, path: Path) -> np.ndarray:
    """(H, W, samples) as stored: unsigned integers of 8, 16, 32 or 64 bits (narrower ones not scaled up), or floats.

    Raises OSError when data is missing or damaged, ValueError for a predictor that is not known.
    """
    planes = page.samples if page.planar else 1
    inside = page.samples // planes
    block_height, block_width = page.block
    down, across = -(-page.height // block_height), -(-page.width // block_width)
    row_bytes = -(-block_width * inside * page.bits // 8)
    if len(page.offsets) < planes * down * across:
        raise OSError(f"image file is truncated ({len(page.offsets)} of {planes * down * across} blocks)")
    wide = next(bits for bits in (8, 16, 32, 64) if page.bits <= bits)
    kind = "f" if page.sample_format == _FLOAT and wide > 8 else "u"
    result = np.empty((page.height, page.width, page.samples), dtype=f"{kind}{wide // 8}")
    for number in range(planes * down * across):
        plane, place = divmod(number, down * across)
        top, left = place // across * block_height, place % across * block_width
        height = block_height if page.tiled else min(block_height, page.height - top)
        rows = _unpredicted(_inflated(page, data, path, number, height, row_bytes), page, inside)
        block = _unpacked(rows, page, result.dtype).reshape(height, -1)[:, : block_width * inside]
        block = block.reshape(height, block_width, inside)[: page.height - top, : page.width - left]
        place = result[top : top + block.shape[0], left : left + block.shape[1]]
        place[..., plane * inside : (plane + 1) * inside] = block
    return result


def _inflated(page: TiffPage, data: bytes, path: Path, number: int, height: int, row_bytes: int) -> np.ndarray:
    """(height, row_bytes) uint8: by Pillow, as a TIFF of this block, grey, 8 bits, as wide as a row has bytes."""
    start = page.offsets[number]
    raw = page.compression == _NONE or number >= len(page.lengths)
    length = height * row_bytes if raw else page.lengths[number]
    if start + length > len(data):
        raise OSError(f"image file is truncated ({len(data)} of {start + length} bytes)")
    tags = ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
    tags[256], tags[257], tags[258], tags[259], tags[262] = row_bytes, height, 8, page.compression, 1
    tags[266] = 2 if page.reversed_bits else 1
    tags[273], tags[277], tags[278], tags[279] = 0, 1, height, length  # at 0 behind the directory
    file = b"II*\0\x08\0\0\0" + tags.tobytes(8) + data[start : start + length]
    with pillow_picture(io.BytesIO(file), path, own_size=False) as picture:
        picture.load()
        return np.asarray(picture)


def _unpredicted(rows: np.ndarray, page: TiffPage, inside: int) -> np.ndarray:
    """Undo horizontal differences (2) or the floating point predictor (3); raw data has none."""
    if page.predictor == 1 or page.compression in (_NONE, _PACKBITS):
        return rows
    size = page.bits // 8
    if page.predictor == 2 and page.bits in (8, 16, 32, 64):
        values = rows.view(f"{'>' if page.big_endian else '<'}u{size}").reshape(len(rows), -1, inside)
        native = np.cumsum(values, axis=1, dtype=np.dtype(f"u{size}"))
        return native.astype(values.dtype).reshape(len(rows), -1).view(np.uint8)
    if page.predictor == 3 and page.sample_format == _FLOAT and page.bits in (16, 32, 64):
        sums = np.cumsum(rows.reshape(len(rows), -1, inside), axis=1, dtype=np.uint8).reshape(len(rows), size, -1)
        big = np.ascontiguousarray(sums.transpose(0, 2, 1))  # most significant byte first
        return (big if page.big_endian else np.ascontiguousarray(big[..., ::-1])).reshape(len(rows), -1)
    raise ValueError(f"TIFF predictor {page.predictor} for {page.bits} bits is not supported")


def _unpacked(rows: np.ndarray, page: TiffPage, dtype: np.dtype) -> np.ndarray:
    """The numbers of the rows, with those that fill up the last byte."""
    if page.bits in (8, 16, 32, 64):
        return rows.view(dtype.newbyteorder(">" if page.big_endian else "<")).astype(dtype)
    bits = np.unpackbits(rows, axis=1)
    bits = bits[:, : bits.shape[1] // page.bits * page.bits].reshape(len(rows), -1, page.bits)
    return sum((bits[..., at].astype(dtype) << (page.bits - 1 - at) for at in range(page.bits)), start=dtype.type(0))


def _numbers(tags: ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    value: Any = tags.get(tag, ())
    values = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(v, int) and v >= 0 for v in values):
        raise SyntaxError(f"TIFF tag {tag} is {value!r:.60}")
    return values


def _number(tags: ImageFileDirectory_v2, tag: int, default: int) -> int:
    return (_numbers(tags, tag) or (default,))[0]


def _blob(tags: ImageFileDirectory_v2, tag: int) -> bytes:
    value: Any = tags.get(tag, b"")
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, tuple):
        return bytes(v & 255 for v in value if isinstance(v, int))
    return value if isinstance(value, bytes) else b""
