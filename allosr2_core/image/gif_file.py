"""GIF: the blocks are read here and the frames composed; Pillow unpacks the pixels of one frame at a time."""

import io
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .animation import Disposal, Patch, compose
from .geometry import check_size
from .opening import pillow_picture
from .picture_file import Decoded, FileInfo, Header

_DISPOSALS = {2: Disposal.CLEAR, 3: Disposal.RESTORE}


@dataclass(frozen=True)
class _Frame:
    left: int
    top: int
    width: int
    height: int
    flags: int
    palette: bytes
    data: bytes  # minimum code size and sub-blocks
    duration_ms: float = 0.0
    disposal: Disposal = Disposal.KEEP
    transparent: int | None = None


@dataclass(frozen=True)
class _Blocks:
    height: int
    width: int
    frames: tuple[_Frame, ...]
    plays: int
    comment: bytes


@dataclass(frozen=True)
class GifFile:
    """data: the whole file."""

    path: Path
    data: bytes

    @cached_property
    def _blocks(self) -> _Blocks:
        blocks = _read(self.data)
        for frame in (blocks, *blocks.frames):
            check_size(frame.height, frame.width, what=f"{self.path}: the picture")
        return blocks

    def header(self) -> Header:
        """See PictureFile."""
        blocks = self._blocks
        first = blocks.frames[0]
        covers = (first.width, first.height, first.left, first.top) == (blocks.width, blocks.height, 0, 0)
        clears = any(frame.disposal is Disposal.CLEAR for frame in blocks.frames[:-1])
        frames = len(blocks.frames)
        return Header(
            height=blocks.height,
            width=blocks.width,
            frames=frames,
            animated=frames > 1,
            transparent=first.transparent is not None or not covers or clears,
            loop=blocks.plays if frames > 1 else 0,
        )

    def decode(self, frame: int) -> Decoded:
        """See PictureFile. Alpha only where something is transparent."""
        blocks = self._blocks
        shown = compose(blocks.height, blocks.width, (self._patch(one) for one in blocks.frames[: frame + 1]))
        opaque = bool((shown[..., 3] == 255).all())
        return Decoded(
            shown[..., :3],
            None if opaque else shown[..., 3],
            info=FileInfo(comment=blocks.comment),
            duration_ms=blocks.frames[frame].duration_ms,
        )

    def _patch(self, frame: _Frame) -> Patch:
        """Pillow gets a GIF of this frame alone, with a palette of indices: what it decodes are the indices."""
        header = b"GIF89a" + struct.pack("<HHBBB", frame.width, frame.height, 0, 0, 0)
        place = b"," + struct.pack("<HHHHB", 0, 0, frame.width, frame.height, 0x80 | (frame.flags & 0x40) | 7)
        greys = bytes(value for value in range(256) for _ in range(3))
        with pillow_picture(io.BytesIO(header + place + greys + frame.data + b";"), self.path) as picture:
            picture.load()
            index_HW = np.asarray(picture)
        table = np.zeros((256, 4), dtype=np.uint8)
        table[:, 3] = 255
        colours = np.frombuffer(frame.palette, dtype=np.uint8).reshape(-1, 3)
        table[: len(colours), :3] = colours
        if frame.transparent is not None:
            table[frame.transparent] = 0
        y = max(0, min(frame.top, self._blocks.height))
        x = max(0, min(frame.left, self._blocks.width))
        inside = index_HW[: self._blocks.height - y, : self._blocks.width - x]
        return Patch(table[inside], y, x, frame.disposal, over=True)


def _read(data: bytes) -> _Blocks:
    """GIF89a. Raises EOFError when there is no whole frame; frames behind a cut are left to the decoder to refuse."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13
    common = _palette(data, at, flags)
    at += len(common)
    frames: list[_Frame] = []
    plays, comment, control = 1, b"", b""
    while at < len(data) and data[at] != 0x3B:
        kind = data[at]
        if kind == 0x21 and at + 2 < len(data):
            body, end = _sub_blocks(data, at + 2)
            label = data[at + 1]
            if label == 0xF9 and len(body) >= 4:
                control = body
            elif label == 0xFE:
                comment = body
            elif label == 0xFF and body[:11] in (b"NETSCAPE2.0", b"ANIMEXTS1.0") and len(body) >= 14 and body[11] == 1:
                repeats = struct.unpack_from("<H", body, 12)[0]
                plays = repeats + 1 if repeats else 0  # GIF counts how often it plays again
            at = end
        elif kind == 0x2C and at + 10 < len(data):
            left, top, across, down, flags = struct.unpack_from("<HHHHB", data, at + 1)
            own = _palette(data, at + 10, flags)
            start = at + 10 + len(own)
            at = _sub_blocks(data, start + 1)[1]
            frames.append(_frame(left, top, across, down, flags, own or common, data[start:at], control))
            control = b""
        else:
            at += 1  # padding some writers leave between blocks
    if not frames:
        raise EOFError("GIF without a frame")
    if width == 0 or height == 0:  # some writers leave the screen empty; every viewer takes the first frame's size
        width, height = frames[0].width, frames[0].height
    return _Blocks(height, width, tuple(frames), plays, comment)


def _frame(
    left: int, top: int, width: int, height: int, flags: int, palette: bytes, data: bytes, control: bytes
) -> _Frame:
    if width == 0 or height == 0:
        raise EOFError(f"GIF frame of {width}x{height} px")
    packed, delay, transparent = struct.unpack_from("<BHB", control.ljust(4, b"\0"))
    return _Frame(
        left,
        top,
        width,
        height,
        flags,
        palette or bytes(value for value in range(256) for _ in range(3)),
        data,
        duration_ms=delay * 10.0,
        disposal=_DISPOSALS.get(packed >> 2 & 7, Disposal.KEEP),
        transparent=transparent if packed & 1 else None,
    )


def _palette(data: bytes, at: int, flags: int) -> bytes:
    size = 3 << ((flags & 7) + 1) if flags & 0x80 else 0
    if at + size > len(data):
        raise EOFError("GIF cut off in a palette")
    return data[at : at + size]


def _sub_blocks(data: bytes, at: int) -> tuple[bytes, int]:
    """The sub-blocks joined, and where the next block starts."""
    parts = []
    while at < len(data) and data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b"".join(parts), at + 1
