"""JPEG: Pillow decodes, here is what it says about files that are cut off or that hold more than one picture."""

import re
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .picture_file import Decoded, Header
from .pillow_file import PillowFile

_END = b"\xff\xd9"
_FILLERS = (b"\x00" * 64 + _END, b"\xaa" * 64 + _END)
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # in coded data: FF 00 and the restart markers are not markers
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_COEFFICIENTS = 64
_MOST_SCANS = 100
"""Each goes over the whole picture again; programs write a dozen at most."""


@dataclass(frozen=True)
class JpegFile:
    """data: the whole file. A second view (MPO), a gain map or a video behind the picture is left out and noted."""

    path: Path
    data: bytes

    def header(self) -> Header:
        """See PictureFile."""
        return replace(PillowFile(self.path, self.data).header(), frames=1, animated=False, loop=0)

    def decode(self, frame: int) -> Decoded:
        """See PictureFile; frame is 0."""
        layout = _read_layout(self.data)
        if layout.scans > _MOST_SCANS:
            raise OSError(f"a JPEG of {layout.scans} scans, {_MOST_SCANS} at most are read")
        if layout.end is not None:
            decoded = PillowFile(self.path, self.data).decode(frame)
            note = _left_behind(self.data, layout.end)
            return replace(decoded, notes=(note,)) if note else decoded
        if not layout.all_scans_begun:
            raise OSError("image file is truncated (parts of the picture have no data)")
        # Whatever data is missing, the decoder would take the filler for it: the same picture with two different ones
        # means that none was.
        begun = self.data.removesuffix(b"\xff")  # half of the end marker, which would make a marker of the filler
        decoded, other = (PillowFile(self.path, begun + filler).decode(frame) for filler in _FILLERS)
        if not np.array_equal(decoded.values_HWC, other.values_HWC):
            raise OSError("image file is truncated (the end of the picture is missing)")
        return replace(decoded, notes=("the last bytes of the file are missing, the picture is complete",))


@dataclass
class _Layout:
    """end: behind the end marker, None when there is none. exact: component -> coefficients with their last bit."""

    end: int | None = None
    progressive: bool = False
    scans: int = 0
    components: tuple[int, ...] = ()
    exact: dict[int, set[int]] = field(default_factory=dict)

    @property
    def all_scans_begun(self) -> bool:
        """Whether every coefficient of every component has had a scan for its last bit."""
        return bool(self.components) and all(len(self.exact.get(c, ())) == _COEFFICIENTS for c in self.components)


def _read_layout(data: bytes) -> _Layout:
    """Follow the segments as far as they go; never raises."""
    layout = _Layout()
    at: int | None = 2
    try:
        while at is not None and at + 2 <= len(data):
            if data[at] != 0xFF:
                at = _next_marker(data, at)
                continue
            kind = data[at + 1]
            at += 1 if kind == 0xFF else 2
            if kind == 0xD9:
                layout.end = at
                break
            if kind not in (0x00, 0x01, 0xFF) and not 0xD0 <= kind <= 0xD8:
                length = struct.unpack_from(">H", data, at)[0]
                if at + length > len(data) or length < 2:
                    break
                _note_segment(layout, kind, data[at + 2 : at + length])
                at = _next_marker(data, at + length) if kind == 0xDA else at + length
    except (struct.error, IndexError):
        pass
    return layout


def _next_marker(data: bytes, at: int) -> int | None:
    found = _MARKER.search(data, at)
    return None if found is None else found.start()


def _note_segment(layout: _Layout, kind: int, body: bytes) -> None:
    if kind in _FRAMES and not layout.components:
        layout.progressive = kind in _PROGRESSIVE
        layout.components = tuple(body[6 + 3 * index] for index in range(body[5]))
    elif kind == 0xDA:
        layout.scans += 1
        count = body[0]
        first, last, bits = body[1 + 2 * count : 4 + 2 * count] if layout.progressive else (0, _COEFFICIENTS - 1, 0)
        if bits & 15 == 0:
            for index in range(count):
                layout.exact.setdefault(body[1 + 2 * index], set()).update(range(first, last + 1))


def _left_behind(data: bytes, end: int) -> str:
    """What stands behind the picture's end: a note, or "" for nothing or padding."""
    tail = data[end : end + (1 << 16)].lstrip(b"\0")
    if tail.startswith(b"\xff\xd8\xff"):
        return "the file has a second picture (another view or a gain map), left out"
    if b"ftyp" in tail[:4096] or b"MotionPhoto_Data" in tail:
        return "the file has a video behind the picture (motion photo), left out"
    return ""
