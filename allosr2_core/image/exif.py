"""EXIF blocks, changed in place: maker notes point into the block by offset and would break if it were written anew."""

import math
import struct
from dataclasses import dataclass

PREFIX = b"Exif\x00\x00"

_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 274, 282, 283, 296
_EXIF_DIRECTORY, _PIXEL_WIDTH, _PIXEL_HEIGHT = 0x8769, 0xA002, 0xA003
_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 513, 514
# How the pixels of the old file were laid out, and its profile and XMP, which travel on their own: wrong in the result.
_STRUCTURE = frozenset(
    (254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 301, 317, 318, 319, 320, 322, 323, 324, 325, 330)
    + (338, 339, 347, 512, 513, 514, 529, 530, 531, 532, 700, 33723, 34377, 34675)
)


class ExifDamage(ValueError):
    """The block is not a TIFF structure."""


@dataclass(frozen=True)
class CleanExif:
    """A block that describes the upright picture, and what it said about the file it came from."""

    block: bytes
    orientation: int = 1
    """1..8, as found."""
    dpi: tuple[float, float] | None = None
    """Pixels an inch across and down the stored, not yet upright, picture."""


@dataclass(frozen=True)
class _Directory:
    start: int
    entries: dict[int, int]  # tag -> where its 12 bytes are
    next_at: int


def clean_exif(exif: bytes) -> CleanExif:
    """The TIFF-structured block with orientation 1, without thumbnail and structural tags; b"" when there is none.

    Raises ExifDamage when the first directory cannot be followed.
    """
    while exif.startswith(PREFIX):
        exif = exif[len(PREFIX) :]
    if not exif:
        return CleanExif(b"")
    block = bytearray(exif)
    order = _byte_order(exif)
    first = _directory(block, order, struct.unpack_from(order + "I", block, 4)[0])
    orientation = _number(block, order, first.entries.get(_ORIENTATION)) or 1
    dpi = _resolution(block, order, first)
    if _ORIENTATION in first.entries:
        struct.pack_into(order + "HIHH", block, first.entries[_ORIENTATION] + 2, 3, 1, 1, 0)
    if orientation in range(5, 9):
        _exchange(block, first.entries.get(_X_RESOLUTION), first.entries.get(_Y_RESOLUTION))
    _drop_thumbnail(block, order, first)
    _drop_entries(block, order, first)
    return CleanExif(bytes(block), orientation if orientation in range(1, 9) else 1, dpi)


def resized_exif(block: bytes, height: int, width: int) -> bytes:
    """The block with PixelXDimension and PixelYDimension of the result, px, where it has them."""
    if not block:
        return block
    changed = bytearray(block)
    try:
        order = _byte_order(block)
        first = _directory(changed, order, struct.unpack_from(order + "I", changed, 4)[0])
        at = _number(changed, order, first.entries.get(_EXIF_DIRECTORY))
        if at is None:
            return block
        entries = _directory(changed, order, at).entries
    except ExifDamage:  # a damaged sub-directory: nothing in it to correct
        return block
    for tag, size in ((_PIXEL_WIDTH, width), (_PIXEL_HEIGHT, height)):
        if tag in entries:
            struct.pack_into(order + "HII", changed, entries[tag] + 2, 4, 1, size)
    return bytes(changed)


def resolution_exif(dpi: tuple[float, float]) -> bytes:
    """A block that says nothing but the resolution, for formats without a field of their own."""
    rational = [(round(value * 1000), 1000) for value in dpi]
    entries = struct.pack("<HHII", _X_RESOLUTION, 5, 1, 50) + struct.pack("<HHII", _Y_RESOLUTION, 5, 1, 58)
    entries += struct.pack("<HHIHH", _RESOLUTION_UNIT, 3, 1, 2, 0)
    directory = struct.pack("<H", 3) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<4I", *rational[0], *rational[1])


def _byte_order(block: bytes) -> str:
    if len(block) < 14 or block[:4] not in (b"II*\0", b"MM\0*"):
        raise ExifDamage("no TIFF header")
    return "<" if block[:2] == b"II" else ">"


def _directory(block: bytearray, order: str, start: int) -> _Directory:
    if not 8 <= start <= len(block) - 2:
        raise ExifDamage(f"directory at byte {start} of {len(block)}")
    count = struct.unpack_from(order + "H", block, start)[0]
    next_at = start + 2 + 12 * count
    if next_at > len(block):
        raise ExifDamage(f"{count} entries in {len(block) - start} bytes")
    positions = [start + 2 + 12 * index for index in range(count)]
    return _Directory(start, {struct.unpack_from(order + "H", block, at)[0]: at for at in positions}, next_at)


def _number(block: bytearray, order: str, at: int | None) -> int | None:
    if at is None:
        return None
    kind = struct.unpack_from(order + "H", block, at + 2)[0]
    if kind not in (3, 4):
        return None
    return struct.unpack_from(order + ("H" if kind == 3 else "I"), block, at + 8)[0]


def _resolution(block: bytearray, order: str, first: _Directory) -> tuple[float, float] | None:
    values = []
    for tag in (_X_RESOLUTION, _Y_RESOLUTION):
        at = first.entries.get(tag)
        if at is None or struct.unpack_from(order + "H", block, at + 2)[0] != 5:
            return None
        offset = struct.unpack_from(order + "I", block, at + 8)[0]
        if offset + 8 > len(block):
            return None
        above, below = struct.unpack_from(order + "II", block, offset)
        values.append(above / below if below else math.nan)
    unit = _number(block, order, first.entries.get(_RESOLUTION_UNIT)) or 2
    if unit not in (2, 3) or not all(math.isfinite(value) and value > 0 for value in values):
        return None
    factor = 2.54 if unit == 3 else 1.0
    return values[0] * factor, values[1] * factor


def _exchange(block: bytearray, one: int | None, other: int | None) -> None:
    """The values of two entries of the same type: what was across is down in the upright picture."""
    if one is not None and other is not None and block[one + 2 : one + 8] == block[other + 2 : other + 8]:
        block[one + 8 : one + 12], block[other + 8 : other + 12] = (
            block[other + 8 : other + 12],
            block[one + 8 : one + 12],
        )


def _drop_thumbnail(block: bytearray, order: str, first: _Directory) -> None:
    """Cut off or blank the second directory and its JPEG, which show the picture as it was."""
    if first.next_at + 4 > len(block):
        return
    start = struct.unpack_from(order + "I", block, first.next_at)[0]
    struct.pack_into(order + "I", block, first.next_at, 0)
    try:
        second = _directory(block, order, start)
    except ExifDamage:
        return
    if second.start < first.next_at and second.next_at > first.start:  # a directory that lies in the first: damage
        return
    offset = _number(block, order, second.entries.get(_THUMBNAIL_OFFSET))
    length = _number(block, order, second.entries.get(_THUMBNAIL_LENGTH))
    block[second.start : second.next_at] = bytes(second.next_at - second.start)
    if offset is None or length is None or offset < max(first.next_at + 4, 8):
        return
    if offset + length >= len(block) - 1:
        del block[offset:]
    elif block[offset : offset + 2] == b"\xff\xd8":
        block[offset : offset + length] = bytes(length)


def _drop_entries(block: bytearray, order: str, first: _Directory) -> None:
    kept = [at for tag, at in first.entries.items() if tag not in _STRUCTURE]
    if len(kept) == len(first.entries):
        return
    table = b"".join(bytes(block[at : at + 12]) for at in kept)
    table = struct.pack(order + "H", len(kept)) + table + bytes(4)
    room = min(first.next_at + 4, len(block)) - first.start
    block[first.start : first.start + room] = table.ljust(room, b"\0")[:room]
