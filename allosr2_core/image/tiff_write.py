"""TIFF out: deflate with horizontal differences, 8 or 16 bits, any number of pages."""

import itertools
import struct
import warnings
import zlib
from typing import IO, Any

import numpy as np
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from ..errors import AlloSR2Error
from .metadata import Metadata, exif_tags
from .picture_file import DAMAGE

_LEVEL = 4
_STRIP = 1 << 18  # bytes
_MOST_BYTES = (1 << 32) - (1 << 20)


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
        layout = _layout(pixels_HWC, lengths, rows)
        if page_of_many:
            layout[254] = 2
        if metadata.icc_profile:
            layout[34675] = metadata.icc_profile
        if metadata.xmp:
            layout[700] = metadata.xmp
        at = self._file.tell()
        at += at % 2
        note = ""
        try:
            directory, count = _directory(layout, metadata, at)
        except (*DAMAGE, UserWarning) as error:
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


def _layout(pixels_HWC: np.ndarray, lengths: list[int], rows: int) -> dict[int, Any]:
    height, width, channels = pixels_HWC.shape
    layout: dict[int, Any] = {
        256: width,
        257: height,
        258: (pixels_HWC.itemsize * 8,) * channels,
        259: 8,
        262: 1 if channels < 3 else 2,
        273: (0, *itertools.accumulate(lengths[:-1])),  # from the end of the directory: Pillow adds where that is
        274: 1,
        277: channels,
        278: rows,
        279: tuple(lengths),
        284: 1,
        317: 2,
    }
    if channels in (2, 4):
        layout[338] = 2  # alpha, colours not multiplied by it
    return layout


def _directory(layout: dict[int, Any], metadata: Metadata, at: int) -> tuple[bytes, int]:
    """The directory for byte `at` of the file, with all it points to, and its number of entries."""
    tags = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for tag, value in exif_tags(metadata.exif).items():
            tags[tag] = value
    if metadata.dpi is not None:
        tags[282], tags[283] = (IFDRational(round(value * 1000), 1000) for value in metadata.dpi)
        tags[296] = 2
    for tag, value in layout.items():
        tags[tag] = value
    return tags.tobytes(at), len(tags)
