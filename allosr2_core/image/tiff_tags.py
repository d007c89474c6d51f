"""The directories of a TIFF: which pages it has, how their samples are laid out."""

import io
import math
import struct
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ..errors import AlloSR2Error
from .picture_file import FileInfo

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_MOST_PAGES = 10000
_DNG_VERSION = 50706
_EXIF_DIRECTORY, _GPS_DIRECTORY = 0x8769, 0x8825
# Description, camera, resolution, software, date, artist, host, copyright, rating, the XP fields of Windows.
DESCRIPTIVE_TAGS = (269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 18246, 18249, 33432) + (
    tuple(range(40091, 40096))
)


@dataclass(frozen=True)
class TiffPage:
    """One picture. Tags by the names of TIFF 6.0, missing ones with its defaults."""

    index: int
    """Among all directories of the file, as Pillow counts them."""
    width: int
    height: int
    photometric: int
    compression: int
    bits: int
    sample_format: int
    samples: int
    extra: tuple[int, ...]
    planar: bool
    predictor: int
    reversed_bits: bool
    tile: tuple[int, int] | None
    """Height and width of a tile, px; None: strips."""
    rows_per_strip: int
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    colour_map: tuple[int, ...]
    subsampling: tuple[int, int]
    """Pixels across and down that share a chroma sample."""
    luma: tuple[float, ...]
    """Parts of red, green and blue in Y."""
    reference: tuple[float, ...]
    """Black and white of Y, Cb and Cr."""
    big_endian: bool
    info: FileInfo


def read_pages(data: bytes, name: str) -> tuple[tuple[TiffPage, ...], int]:
    """The pages, and how many directories (thumbnails, masks) are none. Raises AlloSR2Error for what is no picture."""
    big = data[2:4] in (b"+\0", b"\0+")
    file = io.BytesIO(data)
    directory = ImageFileDirectory_v2(data[: 16 if big else 8])
    following, seen = directory.next, set()
    pages: list[TiffPage] = []
    left_out: list[TiffPage] = []
    while following and following not in seen and len(seen) < _MOST_PAGES:
        seen.add(following)
        if following >= len(data):
            raise SyntaxError(f"TIFF directory at byte {following} of {len(data)}")
        file.seek(following)
        directory.load(file)
        page = _page(directory, len(seen) - 1, data, name)
        (left_out if _number(directory, 254, 0) & (_REDUCED | _MASK) else pages).append(page)
        following = directory.next
    if not pages:
        pages, left_out = left_out[:1], left_out[1:]
    if not pages:
        raise SyntaxError("TIFF without a picture")
    return tuple(pages), len(left_out)


def _page(tags: ImageFileDirectory_v2, index: int, data: bytes, name: str) -> TiffPage:
    if _DNG_VERSION in tags:
        raise AlloSR2Error(f"{name}: expected a picture, got camera raw data (DNG); develop it to TIFF or PNG first")
    width, height = _number(tags, 256, 0), _number(tags, 257, 0)
    compression = _number(tags, 259, 1)
    samples = _number(tags, 277, 3 if compression == 6 else 1)
    bits = _numbers(tags, 258) or (1,)
    formats = _numbers(tags, 339) or (1,)
    if width < 1 or height < 1 or not 1 <= samples <= 32:
        raise SyntaxError(f"TIFF of {width}x{height} px with {samples} samples a pixel")
    if len(set(bits[:samples])) > 1 or len(set(formats[:samples])) > 1:
        raise AlloSR2Error(
            f"{name}: expected the same kind of sample in all channels, got {bits} bits, kinds {formats}"
        )
    tile = (_number(tags, 323, 0), _number(tags, 322, 0)) if 324 in tags or 322 in tags else None
    # Tiles are filled up at the right and bottom edge; far larger than the picture they are damage.
    if tile is not None and (min(tile) < 1 or tile[0] * tile[1] > 4 * width * height + (1 << 20)):
        raise SyntaxError(f"TIFF tiles of {tile[1]}x{tile[0]} px")
    offsets = _numbers(tags, 324) or _numbers(tags, 273)
    return TiffPage(
        index=index,
        width=width,
        height=height,
        photometric=_number(tags, 262, 6 if compression == 6 else 0),
        compression=compression,
        bits=bits[0],
        sample_format=formats[0],
        samples=samples,
        extra=_numbers(tags, 338),
        planar=_number(tags, 284, 1) == 2 and samples > 1,
        predictor=_number(tags, 317, 1),
        reversed_bits=_number(tags, 266, 1) == 2,
        tile=tile,
        rows_per_strip=min(_number(tags, 278, height) or height, height),
        offsets=offsets,
        lengths=_numbers(tags, 325) or _numbers(tags, 279),
        colour_map=_numbers(tags, 320),
        subsampling=((_numbers(tags, 530) + (2, 2))[0], (_numbers(tags, 530)[1:] or (2,))[0]),
        luma=_fractions(tags, 529, (0.299, 0.587, 0.114)),
        reference=_fractions(tags, 532, (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)),
        big_endian=data[:2] == b"MM",
        info=_info(tags, data),
    )


def _info(tags: ImageFileDirectory_v2, data: bytes) -> FileInfo:
    orientation = _number(tags, 274, 1)
    dpi = None
    if 282 in tags and 283 in tags and _number(tags, 296, 2) in (2, 3):
        try:
            factor = 2.54 if _number(tags, 296, 2) == 3 else 1.0
            dpi = (float(tags[282]) * factor, float(tags[283]) * factor)
        except (TypeError, ValueError, ZeroDivisionError):
            dpi = None
    notes: tuple[str, ...] = ()
    try:
        exif = _exif(tags, data)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error) as error:
        exif, notes = b"", (f"EXIF data damaged ({error}), left out",)
    return FileInfo(
        exif=exif,
        xmp=_blob(tags, 700),
        dpi=dpi,
        icc_profile=_blob(tags, 34675),
        orientation=orientation if orientation in range(1, 9) else 1,
        notes=notes,
    )


def _exif(tags: ImageFileDirectory_v2, data: bytes) -> bytes:
    """The descriptive tags and the EXIF and GPS directories as a block of their own; the rest is the TIFF's layout."""
    block = Image.Exif()
    exchanged = {282: 283, 283: 282} if _number(tags, 274, 1) in range(5, 9) else {}
    for tag in DESCRIPTIVE_TAGS:
        value = tags.get(exchanged.get(tag, tag))  # what was across is down in the upright picture
        # tifffile and ImageJ describe the size and number of pages there: wrong in the result.
        if value is not None and not (tag == 270 and str(value).startswith(('{"shape', "ImageJ="))):
            block[tag] = value
    for pointer in (_EXIF_DIRECTORY, _GPS_DIRECTORY):
        at = _number(tags, pointer, 0)
        if at:
            inner = ImageFileDirectory_v2(tags.prefix + data[2:8], group=pointer)
            file = io.BytesIO(data)
            file.seek(at)
            inner.load(file)
            block[pointer] = dict(inner)
    return block.tobytes() if len(block) else b""


def _numbers(tags: ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    value: Any = tags.get(tag, ())
    values = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(v, int) and v >= 0 for v in values):
        raise SyntaxError(f"TIFF tag {tag} is {value!r:.60}")
    return values


def _number(tags: ImageFileDirectory_v2, tag: int, default: int) -> int:
    return (_numbers(tags, tag) or (default,))[0]


def _fractions(tags: ImageFileDirectory_v2, tag: int, default: tuple[float, ...]) -> tuple[float, ...]:
    value: Any = tags.get(tag, default)
    try:
        values = tuple(float(v) for v in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return default
    return values if len(values) == len(default) and all(math.isfinite(v) for v in values) else default


def _blob(tags: ImageFileDirectory_v2, tag: int) -> bytes:
    value: Any = tags.get(tag, b"")
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, tuple):
        return bytes(v & 255 for v in value if isinstance(v, int))
    return value if isinstance(value, bytes) else b""
