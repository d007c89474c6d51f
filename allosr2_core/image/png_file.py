"""PNG and APNG: every colour type and depth, with all bits."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from .animation import Disposal, Patch, compose
from .geometry import check_size
from .opening import pillow_picture
from .picture_file import Decoded, FileInfo, Header
from .pillow_file import orientation_of
from .png_chunks import PngChunks, PngFrame, read_chunks, stream
from .png_info import png_info

_DISPOSALS = {1: Disposal.CLEAR, 2: Disposal.RESTORE}
_GREY = (0, 4)


@dataclass(frozen=True)
class PngFile:
    """data: the whole file."""

    path: Path
    data: bytes

    @cached_property
    def _chunks(self) -> PngChunks:
        chunks = read_chunks(self.data)
        check_size(chunks.header.height, chunks.header.width, what=f"{self.path}: the picture")
        return chunks

    @cached_property
    def _info(self) -> FileInfo:
        return png_info(self._chunks)

    def header(self) -> Header:
        """See PictureFile."""
        chunks, ihdr = self._chunks, self._chunks.header
        turned = orientation_of(self._info) >= 5
        frames = max(1, len(chunks.frames))
        return Header(
            height=ihdr.width if turned else ihdr.height,
            width=ihdr.height if turned else ihdr.width,
            frames=frames,
            animated=frames > 1,
            transparent=ihdr.colour_type in (4, 6) or chunks.transparency is not None,
            bits=16 if ihdr.depth == 16 else 8,
            grey=ihdr.colour_type in _GREY,
            loop=chunks.plays if frames > 1 else 0,
        )

    def decode(self, frame: int) -> Decoded:
        """See PictureFile."""
        chunks, ihdr = self._chunks, self._chunks.header
        duration = 0.0
        if chunks.frames:
            values_HWC = self._composed(frame)
            duration = chunks.frames[frame].duration_ms
        else:
            values_HWC = self._values(ihdr.height, ihdr.width, chunks.data)
        transparent = ihdr.colour_type in (4, 6) or chunks.transparency is not None
        grey = ihdr.colour_type in _GREY
        colours = 1 if grey else 3
        return Decoded(
            values_HWC[..., :colours],
            values_HWC[..., colours] if transparent else None,
            "grey" if grey else "rgb",
            bits=16 if ihdr.depth == 16 else 8,
            info=self._info,
            duration_ms=duration,
            notes=chunks.notes,
        )

    def _composed(self, last: int) -> np.ndarray:
        """As shown: every frame up to `last` on one canvas."""
        ihdr = self._chunks.header
        patches = (self._patch(index, frame) for index, frame in enumerate(self._chunks.frames[: last + 1]))
        return compose(ihdr.height, ihdr.width, patches)

    def _patch(self, index: int, frame: PngFrame) -> Patch:
        values = self._values(frame.height, frame.width, frame.data or self._chunks.data)
        if values.shape[-1] in (1, 3):
            values = np.concatenate((values, np.full_like(values[..., :1], np.iinfo(values.dtype).max)), axis=-1)
        disposal = _DISPOSALS.get(frame.disposal, Disposal.KEEP)
        if index == 0 and disposal is Disposal.RESTORE:  # the specification: there is nothing to go back to
            disposal = Disposal.CLEAR
        return Patch(values, frame.top, frame.left, disposal, over=frame.blend == 1)

    def _values(self, height: int, width: int, data: bytes) -> np.ndarray:
        """(H, W, 1 | 2 | 3 | 4), uint8 or uint16 over the full range, alpha last where there is any."""
        chunks, ihdr = self._chunks, self._chunks.header
        samples = decoded_samples(stream(chunks, height, width, data), ihdr.depth, ihdr.colour_type, self.path)
        if ihdr.colour_type == 3:
            return _coloured(samples[..., 0], chunks.palette or b"", chunks.transparency)
        alpha = _keyed(samples, ihdr.colour_type, chunks.transparency)
        if ihdr.depth < 8:
            samples = samples * np.uint8(255 // ((1 << ihdr.depth) - 1))
        return samples if alpha is None else np.concatenate((samples, alpha[..., None]), axis=-1)


def decoded_samples(png: bytes, depth: int, colour_type: int, path: Path) -> np.ndarray:
    """(H, W, samples of the colour type) as stored, uint8 or uint16: palette indices, and greys of 1, 2, 4 bits too."""
    if depth < 16:
        raw_modes: tuple[str, ...] = ()
    else:
        # Pillow keeps the first byte of two. Told that the other byte order is the file's, it hands out the second.
        # Grey and alpha are four bytes a pixel, as RGBA of 8 bits, and come in one go.
        raw_modes = {0: (), 2: ("RGB;16B", "RGB;16L"), 4: ("RGBA",), 6: ("RGBA;16B", "RGBA;16L")}[colour_type]
    if not raw_modes:
        values = _load(png, None, path)
        return values if depth >= 8 or colour_type == 3 else values // np.uint8(255 // ((1 << depth) - 1))
    bytes_of = [_load(png, raw_mode, path) for raw_mode in raw_modes]
    if colour_type == 4:
        pairs = bytes_of[0].astype(np.uint16)
        return pairs[..., 0::2] << 8 | pairs[..., 1::2]
    return bytes_of[0].astype(np.uint16) << 8 | bytes_of[1]


def _load(png: bytes, raw_mode: str | None, path: Path) -> np.ndarray:
    with pillow_picture(io.BytesIO(png), path) as picture:
        if raw_mode is not None and isinstance(picture, ImageFile.ImageFile):
            decoder, extents, offset, _ = picture.tile[0]
            tile: Any = (decoder, extents, offset, raw_mode)  # a plain tuple in older Pillows
            picture.tile = [picture.tile[0]._make(tile) if hasattr(picture.tile[0], "_make") else tile]
        picture.load()
        return _channels_last(picture)


def _channels_last(picture: Image.Image) -> np.ndarray:
    values = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    if values.dtype not in (np.uint8, np.uint16):
        values = values.astype(np.uint16)
    return values if values.ndim == 3 else values[..., None]


def _coloured(index_HW: np.ndarray, palette: bytes, transparency: bytes | None) -> np.ndarray:
    table = np.zeros((256, 4), dtype=np.uint8)
    table[:, 3] = 255
    colours = np.frombuffer(palette[: len(palette) // 3 * 3][:768], dtype=np.uint8).reshape(-1, 3)
    table[: len(colours), :3] = colours
    if transparency is None:
        return table[:, :3][index_HW]
    alphas = np.frombuffer(transparency[:256], dtype=np.uint8)
    table[: len(alphas), 3] = alphas
    return table[index_HW]


def _keyed(samples: np.ndarray, colour_type: int, transparency: bytes | None) -> np.ndarray | None:
    """Alpha of a picture with one transparent colour, given at the file's depth."""
    if transparency is None or colour_type not in (0, 2):
        return None
    channels = samples.shape[-1]
    if len(transparency) < 2 * channels:
        raise SyntaxError("PNG damaged: tRNS chunk too short")
    key = np.frombuffer(transparency, dtype=">u2", count=channels).astype(np.int64)
    opaque = (samples != key).any(axis=-1)
    return np.where(opaque, np.iinfo(samples.dtype).max, 0).astype(samples.dtype)
