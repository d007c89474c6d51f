"""The segments of a JPEG: where the picture ends, what stands behind it, whether all its scans are there."""

import re
import struct
from dataclasses import dataclass, field

_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # in coded data: FF 00 and the restart markers are not markers
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_COEFFICIENTS = 64


@dataclass
class JpegLayout:
    """end: behind the end marker, None when there is none."""

    end: int | None = None
    progressive: bool = False
    components: tuple[int, ...] = ()
    exact: dict[int, set[int]] = field(default_factory=dict)
    """Component -> coefficients of which every bit has had its scan."""

    @property
    def all_scans_begun(self) -> bool:
        """Whether every coefficient of every component has had a scan for its last bit."""
        return bool(self.components) and all(
            len(self.exact.get(component, ())) == _COEFFICIENTS for component in self.components
        )


def read_layout(data: bytes) -> JpegLayout:
    """Follow the segments as far as they go; never raises."""
    layout = JpegLayout()
    at = 2
    try:
        while at + 2 <= len(data):
            if data[at] != 0xFF:
                found = _MARKER.search(data, at)
                if found is None:
                    break
                at = found.start()
            kind = data[at + 1]
            at += 2
            if kind == 0xD9:
                layout.end = at
                break
            if kind == 0xFF:
                at -= 1
            elif kind not in (0x00, 0x01) and not 0xD0 <= kind <= 0xD8:
                length = struct.unpack_from(">H", data, at)[0]
                if at + length > len(data) or length < 2:
                    break
                _note_segment(layout, kind, data[at + 2 : at + length])
                at += length
                if kind == 0xDA:
                    found = _MARKER.search(data, at)
                    if found is None:
                        break
                    at = found.start()
    except (struct.error, IndexError):
        pass
    return layout


def left_behind(data: bytes, end: int) -> str:
    """What stands behind the picture's end: a note, or "" for nothing or padding."""
    tail = data[end : end + (1 << 16)].lstrip(b"\0")
    if tail.startswith(b"\xff\xd8\xff"):
        return "the file has a second picture (another view or a gain map), left out"
    if b"ftyp" in tail[:4096] or b"MotionPhoto_Data" in tail:
        return "the file has a video behind the picture (motion photo), left out"
    return ""


def _note_segment(layout: JpegLayout, kind: int, body: bytes) -> None:
    if kind in _FRAMES and not layout.components:
        layout.progressive = kind in _PROGRESSIVE
        layout.components = tuple(body[6 + 3 * index] for index in range(body[5]))
    elif kind == 0xDA:
        count = body[0]
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        if not layout.progressive:
            first, last, bits = 0, _COEFFICIENTS - 1, 0
        if bits & 15 == 0:
            for index in range(count):
                layout.exact.setdefault(body[1 + 2 * index], set()).update(range(first, last + 1))
