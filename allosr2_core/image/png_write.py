"""PNG and APNG out: metadata chunks around pixels, which Pillow packs at 8 bits and this module at 16."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from .metadata import Metadata
from .png_chunks import SIGNATURE, chunk, read_chunks
from .png_file import decoded_samples
from .png_info import XMP_KEYWORD

_LEVEL = 4
_BAND = 1 << 20  # bytes of rows filtered at once
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def write_png(file: IO[bytes], pixels_HWC: np.ndarray, metadata: Metadata) -> None:
    """pixels_HWC: (H, W, 1 grey | 2 grey and alpha | 3 | 4), uint8 or uint16."""
    file.write(SIGNATURE + _header(pixels_HWC.shape, pixels_HWC.itemsize * 8))
    file.writelines(_metadata_chunks(metadata))
    for data in packed(pixels_HWC):
        file.write(chunk(b"IDAT", data))
    file.write(chunk(b"IEND", b""))


@dataclass(frozen=True)
class _Packed:
    data: tuple[bytes, ...]
    shape: tuple[int, ...]
    depth: int
    duration_ms: float


class ApngWriter:
    """Frames for an open file; every frame covers the whole picture.

    They wait, packed, for `finish`: only the last one tells whether the animation has alpha.
    """

    def __init__(self, file: IO[bytes], metadata: Metadata, plays: int) -> None:
        self._file, self._metadata, self._plays = file, metadata, plays
        self._frames: list[_Packed] = []

    def add(self, pixels_HWC: np.ndarray, duration_ms: float) -> None:
        """pixels_HWC as for `write_png`; alpha may come and go."""
        self._frames.append(_pack(pixels_HWC, duration_ms))

    def finish(self) -> None:
        """Writes the file."""
        channels = max(frame.shape[-1] for frame in self._frames)
        first = self._frames[0]
        self._file.write(SIGNATURE + _header((*first.shape[:2], channels), first.depth))
        self._file.writelines(_metadata_chunks(self._metadata))
        self._file.write(chunk(b"acTL", struct.pack(">II", len(self._frames), self._plays)))
        sequence = 0
        for number, frame in enumerate(self._frames):
            if frame.shape[-1] != channels:
                frame = _with_alpha(frame)
            height, width, _ = frame.shape
            above, below = _delay(frame.duration_ms)
            place = struct.pack(">5I2H2B", sequence, width, height, 0, 0, above, below, 0, 0)
            self._file.write(chunk(b"fcTL", place))
            sequence += 1
            for data in frame.data:
                if number == 0:
                    self._file.write(chunk(b"IDAT", data))
                else:
                    self._file.write(chunk(b"fdAT", struct.pack(">I", sequence) + data))
                    sequence += 1
        self._file.write(chunk(b"IEND", b""))


def _pack(pixels_HWC: np.ndarray, duration_ms: float) -> _Packed:
    return _Packed(tuple(packed(pixels_HWC)), pixels_HWC.shape, pixels_HWC.itemsize * 8, duration_ms)


def _with_alpha(frame: _Packed) -> _Packed:
    """The same, unpacked and packed again with an opaque alpha channel."""
    header = _header(frame.shape, frame.depth)
    png = SIGNATURE + header + chunk(b"IDAT", b"".join(frame.data)) + chunk(b"IEND", b"")
    pixels_HWC = decoded_samples(png, frame.depth, _COLOUR_TYPES[frame.shape[-1]], Path("frame"))
    alpha = np.full_like(pixels_HWC[..., :1], np.iinfo(pixels_HWC.dtype).max)
    return _pack(np.concatenate((pixels_HWC, alpha), axis=-1), frame.duration_ms)


def packed(pixels_HWC: np.ndarray) -> Iterator[bytes]:
    """The deflated, filtered rows, in pieces."""
    if pixels_HWC.dtype == np.uint8:
        buffer = io.BytesIO()
        pixels_HWC = pixels_HWC[..., 0] if pixels_HWC.shape[-1] == 1 else pixels_HWC
        Image.fromarray(pixels_HWC).save(buffer, format="PNG", compress_level=_LEVEL)
        yield read_chunks(buffer.getvalue()).data
        return
    height, width, channels = pixels_HWC.shape
    size = 2 * channels
    rows = max(1, _BAND // (width * size))
    deflater = zlib.compressobj(_LEVEL)
    above = np.zeros((1, width * size), dtype=np.uint8)
    for top in range(0, height, rows):
        band = np.ascontiguousarray(pixels_HWC[top : top + rows].astype(">u2")).view(np.uint8)
        band = band.reshape(len(band), width * size)
        data = deflater.compress(_filtered(band, above, size).tobytes())
        above = band[-1:]
        if data:
            yield data
    yield deflater.flush()


def _filtered(rows: np.ndarray, above: np.ndarray, size: int) -> np.ndarray:
    """(rows, 1 + bytes): of the five filters of PNG the one with the smallest sum of differences, row by row."""
    up = np.concatenate((above, rows[:-1]))
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, size:], corner[:, size:] = rows[:, :-size], up[:, :-size]
    a, b, c = left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16)
    # Paeth: of the three neighbours the one nearest to a + b - c.
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
    mean = ((a + b) >> 1).astype(np.uint8)
    best, cost = rows.copy(), _cost(rows)
    kind = np.zeros(len(rows), dtype=np.uint8)
    for number, guess in ((1, left), (2, up), (3, mean), (4, nearest)):
        candidate = rows - guess  # modulo 256, as it should be
        candidate_cost = _cost(candidate)
        better = candidate_cost < cost
        best[better], cost[better], kind[better] = candidate[better], candidate_cost[better], number
    return np.concatenate((kind[:, None], best), axis=1)


def _cost(differences: np.ndarray) -> np.ndarray:
    return np.minimum(differences, 0 - differences).sum(axis=1, dtype=np.int64)


def _header(shape: tuple[int, ...], depth: int) -> bytes:
    height, width, channels = shape
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPES[channels], 0, 0, 0))


def _metadata_chunks(metadata: Metadata) -> Iterator[bytes]:
    if metadata.icc_profile:
        yield chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc_profile))
    if metadata.dpi is not None:
        yield chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in metadata.dpi), 1))
    if metadata.exif:
        yield chunk(b"eXIf", metadata.exif)
    if metadata.xmp:
        yield chunk(b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + metadata.xmp)
    for keyword, value in metadata.text:
        yield _text(keyword, value)
    if metadata.comment and not any(keyword == "Comment" for keyword, _ in metadata.text):
        yield _text("Comment", metadata.comment.decode("utf-8", errors="replace"))


def _text(keyword: str, value: str) -> bytes:
    name = keyword.encode("latin-1", errors="replace")[:79] or b"Comment"
    try:
        return chunk(b"tEXt", name + b"\0" + value.encode("latin-1"))
    except UnicodeEncodeError:
        return chunk(b"iTXt", name + b"\0\0\0\0\0" + value.encode())


def _delay(duration_ms: float) -> tuple[int, int]:
    """Seconds as a fraction of two numbers of 16 bits, exact for whole milliseconds up to a minute."""
    seconds = Fraction(max(0.0, duration_ms)).limit_denominator(1000) / 1000
    bound = 65535
    while True:
        nearest = seconds.limit_denominator(bound)
        if nearest.numerator <= 65535:
            return nearest.numerator, nearest.denominator
        if bound == 1:
            return 65535, 1
        bound //= 2
