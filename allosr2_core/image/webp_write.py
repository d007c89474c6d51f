"""Animated WebP: still pictures as Pillow encodes them, put into frames.

Pillow's own writer of animations merges equal frames and keeps all of them in memory.
"""

import io
import struct
from typing import IO

import numpy as np
from PIL import Image

from .metadata import Metadata

_METHOD = 4
_ICC, _ALPHA, _EXIF, _XMP, _ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02
_REPLACE = 2  # a frame does not blend with the one before
_MOST_BYTES = (1 << 32) - 10


def _still(pixels_HWC: np.ndarray, quality: int) -> bytes:
    """(H, W, 3 | 4) uint8 -> a WebP. The colour under transparent pixels is kept."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, format="WEBP", quality=quality, method=_METHOD, exact=True)
    return buffer.getvalue()


class WebpWriter:
    """Frame by frame into an open file; every frame covers the whole picture."""

    def __init__(self, file: IO[bytes], metadata: Metadata, plays: int, quality: int) -> None:
        self._file, self._metadata, self._plays, self._quality = file, metadata, min(plays, 65535), quality
        self._size = (0, 0)
        self._alpha = False
        self._frames = 0

    def add(self, pixels_HWC: np.ndarray, duration_ms: float) -> None:
        """pixels_HWC: (H, W, 3 | 4) uint8; alpha may come and go."""
        height, width, channels = pixels_HWC.shape
        if self._frames == 0:
            self._size = (height, width)
            self._file.write(self._head())
            if self._metadata.icc_profile:
                self._file.write(_chunk(b"ICCP", self._metadata.icc_profile))
            self._file.write(_chunk(b"ANIM", struct.pack("<IH", 0, self._plays)))
        self._alpha |= channels == 4
        duration = min(round(max(0.0, duration_ms)), (1 << 24) - 1)
        place = _u24(0) + _u24(0) + _u24(width - 1) + _u24(height - 1) + _u24(duration) + bytes([_REPLACE])
        self._file.write(_chunk(b"ANMF", place + _image_chunks(_still(pixels_HWC, self._quality))))
        self._frames += 1

    def finish(self) -> None:
        """Ends the file and fills in its size. Raises ValueError above 4 GB, where WebP ends."""
        if self._metadata.exif:
            self._file.write(_chunk(b"EXIF", self._metadata.exif))
        if self._metadata.xmp:
            self._file.write(_chunk(b"XMP ", self._metadata.xmp))
        length = self._file.tell()
        if length > _MOST_BYTES:
            raise ValueError("more than 4 GB, where WebP ends")
        self._file.seek(0)
        self._file.write(self._head(length))
        self._file.seek(0, 2)

    def _head(self, length: int = 8) -> bytes:
        flags = _ANIMATION | (_ALPHA if self._alpha else 0) | (_ICC if self._metadata.icc_profile else 0)
        flags |= (_EXIF if self._metadata.exif else 0) | (_XMP if self._metadata.xmp else 0)
        height, width = self._size
        extended = bytes([flags, 0, 0, 0]) + _u24(width - 1) + _u24(height - 1)
        return b"RIFF" + struct.pack("<I", length - 8) + b"WEBP" + _chunk(b"VP8X", extended)


def _image_chunks(webp: bytes) -> bytes:
    """The chunks of a still WebP that are pixels: ALPH, VP8, VP8L."""
    result, at = b"", 12
    while at + 8 <= len(webp):
        name, length = struct.unpack_from("<4sI", webp, at)
        end = at + 8 + length + length % 2
        if name in (b"ALPH", b"VP8 ", b"VP8L"):
            result += webp[at:end]
        at = end
    return result


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _u24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]
