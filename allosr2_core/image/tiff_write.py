"""TIFF out: deflate with horizontal differences, 8 or 16 bits, any number of pages."""

import itertools
import struct
import warnings
import zlib
from typing import IO, Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from ..errors import AlloSR2Error
from .metadata import Metadata
from .tiff_tags import DESCRIPTIVE_TAGS

_LEVEL = 4
_STRIP = 1 << 18  # bytes
_MOST_BYTES = (1 << 32) - (1 << 20)
_POINTERS = (0x8769, 0x8825)
_BYTE, _SHORT, _LONG, _UNDEFINED = 1, 3, 4, 7


# What Pillow raises or warns of when it meets tags it cannot read or write.
_BAD_TAGS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError),
    *(struct.error, UserWarning),
)


class TiffWriter:
    """Page by page into an open file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._link_at = 4  # where the offset of the next directory goes
        file.write(b"II*\0" + bytes(4))

    def add(self, pixels_HWC: np.ndarray, metadata: Metadata, page_of_many: bool = False) -> str:
        """pixels_HWC: (H, W, 1 grey | 2 grey and alpha | 3 | 4), uint8 or uint16. Returns a note, "" for nothing lost.

        Raises AlloSR2Error above 4 GB, where TIFF ends.
        """
        strips, rows = _strips(pixels_HWC)
        lengths = [len(strip) for strip in strips]
        # Counted from the end of the directory: Pillow adds where that is.
        offsets = [0, *itertools.accumulate(lengths[:-1])]
        layout = _layout(pixels_HWC, offsets, lengths, rows)
        if page_of_many:
            layout[254] = (_LONG, 2)
        if metadata.icc_profile:
            layout[34675] = (_UNDEFINED, metadata.icc_profile)
        if metadata.xmp:
            layout[700] = (_BYTE, metadata.xmp)
        at = self._file.tell()
        at += at % 2
        note = ""
        try:
            directory, count = _directory(layout, metadata, at)
        except _BAD_TAGS as error:
            note = f"EXIF data could not be written as TIFF tags ({error}), left out"
            directory, count = _directory(layout, Metadata(dpi=metadata.dpi), at)
        if at + len(directory) + sum(lengths) > _MOST_BYTES:
            raise AlloSR2Error("expected at most 4 GB, where TIFF ends")
        self._file.write(bytes(at - self._file.tell()) + directory)
        self._file.writelines(strips)
        self._file.seek(self._link_at)
        self._file.write(struct.pack("<I", at))
        self._file.seek(0, 2)
        self._link_at = at + 2 + 12 * count
        return note


def _strips(pixels_HWC: np.ndarray) -> tuple[list[bytes], int]:
    """The deflated strips, and the rows in each (the last may have fewer)."""
    height, width, channels = pixels_HWC.shape
    rows = min(height, max(1, _STRIP // (width * channels * pixels_HWC.itemsize)))
    strips = []
    for top in range(0, height, rows):
        strip = pixels_HWC[top : top + rows]
        differences = strip.copy()
        differences[:, 1:] -= strip[:, :-1]  # modulo 2 to the bits, as it should be
        strips.append(zlib.compress(differences.astype(strip.dtype.newbyteorder("<")).tobytes(), _LEVEL))
    return strips, rows


def _layout(
    pixels_HWC: np.ndarray, offsets: list[int], lengths: list[int], rows: int
) -> dict[int, tuple[int, int | bytes | tuple[int, ...]]]:
    """Tag -> type and value."""
    height, width, channels = pixels_HWC.shape
    layout: dict[int, tuple[int, int | bytes | tuple[int, ...]]] = {
        256: (_LONG, width),
        257: (_LONG, height),
        258: (_SHORT, (pixels_HWC.itemsize * 8,) * channels),
        259: (_SHORT, 8),
        262: (_SHORT, 1 if channels < 3 else 2),
        273: (_LONG, tuple(offsets)),
        274: (_SHORT, 1),
        277: (_SHORT, channels),
        278: (_LONG, rows),
        279: (_LONG, tuple(lengths)),
        284: (_SHORT, 1),
        317: (_SHORT, 2),
    }
    if channels in (2, 4):
        layout[338] = (_SHORT, 2)  # alpha, colours not multiplied by it
    return layout


def _directory(
    layout: dict[int, tuple[int, int | bytes | tuple[int, ...]]], metadata: Metadata, at: int
) -> tuple[bytes, int]:
    """The directory for byte `at` of the file, with all it points to, and its number of entries."""
    tags = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    for tag, value in _described(metadata.exif).items():
        tags[tag] = value
    if metadata.dpi is not None:
        tags[282], tags[283] = (IFDRational(round(value * 1000), 1000) for value in metadata.dpi)
        tags[296] = 2
    for tag, (kind, value) in layout.items():
        tags.tagtype[tag] = kind
        tags[tag] = value
    count = len(tags)
    return tags.tobytes(at), count


def _described(exif: bytes) -> dict[int, Any]:
    """The descriptive tags of an EXIF block, and its EXIF and GPS directories."""
    if not exif:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        block = Image.Exif()
        block.load(exif)
        found = {tag: block[tag] for tag in DESCRIPTIVE_TAGS if tag in block}
        for pointer in _POINTERS:
            inner = block.get_ifd(pointer)
            if inner:
                found[pointer] = dict(inner)
        return found
