"""The chunks of a PNG: which pixels it has, in how many frames, and what it says about them.

Pillow decodes pixels only; it gets streams made here of nothing but pixels. So damage in a comment cannot cost the
picture, text has no size limit that refuses it, and 16-bit colour keeps its bits (png_file.py).
"""

import struct
import zlib
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST_INFLATED = 1 << 26  # bytes of one compressed text or profile; more is taken for a bomb
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


@dataclass(frozen=True)
class PngHeader:
    """IHDR. colour_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""

    width: int
    height: int
    depth: int
    colour_type: int
    interlace: int

    def packed(self, height: int, width: int) -> bytes:
        """An IHDR chunk of the same kind for another size."""
        return chunk(
            b"IHDR", struct.pack(">IIBBBBB", width, height, self.depth, self.colour_type, 0, 0, self.interlace)
        )


@dataclass(frozen=True)
class PngFrame:
    """fcTL and the data that follows: size and place in px; disposal and blend as in the specification."""

    width: int
    height: int
    left: int
    top: int
    duration_ms: float
    disposal: int
    blend: int
    data: bytes


@dataclass(frozen=True)
class PngChunks:
    """A PNG, taken apart. data: the deflated pixels of the still picture. frames: of the animation, else none."""

    header: PngHeader
    data: bytes
    palette: bytes | None = None
    transparency: bytes | None = None
    frames: tuple[PngFrame, ...] = ()
    plays: int = 0
    others: tuple[tuple[bytes, bytes], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Parts:
    """What the walk collects."""

    ihdr: bytes | None = None
    data: list[bytes] = field(default_factory=list)
    palette: bytes | None = None
    transparency: bytes | None = None
    others: list[tuple[bytes, bytes]] = field(default_factory=list)
    animation: list[tuple[bytes, bytes]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ended: bool = False


def chunk(kind: bytes, data: bytes) -> bytes:
    """Length, name, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def read_chunks(file: bytes) -> PngChunks:
    """Take a PNG apart. Raises SyntaxError when what the pixels need is damaged; damage elsewhere is noted."""
    parts = _walk(file)
    header = _header(parts.ihdr)
    if header.colour_type == 3 and not parts.palette:
        raise SyntaxError("PNG with a palette without the palette")
    notes = list(parts.notes)
    if not parts.ended:
        notes.append("the end of the file (IEND) is missing, the picture is complete")
    frames: tuple[PngFrame, ...] = ()
    plays = 0
    if any(kind == b"acTL" for kind, _ in parts.animation):
        try:
            frames, plays = _frames(parts.animation, header)
        except (struct.error, ValueError) as error:
            notes.append(f"animation damaged ({error}), only the still picture is read")
    return PngChunks(
        header=header,
        data=b"".join(parts.data),
        palette=parts.palette,
        transparency=parts.transparency,
        frames=frames,
        plays=plays,
        others=tuple(parts.others),
        notes=tuple(notes),
    )


def stream(chunks: PngChunks, height: int, width: int, data: bytes) -> bytes:
    """A PNG of one picture, height x width px, with the given deflated pixels and nothing besides."""
    palette = b"" if chunks.palette is None else chunk(b"PLTE", chunks.palette)
    return SIGNATURE + chunks.header.packed(height, width) + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def inflated(data: bytes) -> bytes:
    """Raises zlib.error or ValueError for damage and for more than 64 MiB."""
    inflater = zlib.decompressobj()
    result = inflater.decompress(data, _MOST_INFLATED)
    if inflater.unconsumed_tail:
        raise ValueError(f"more than {_MOST_INFLATED >> 20} MiB")
    if not inflater.eof:
        raise zlib.error("incomplete")
    return result


def _walk(file: bytes) -> _Parts:
    parts = _Parts()
    view = memoryview(file)
    at = len(SIGNATURE)
    while at + 8 <= len(file) and not parts.ended:
        length, kind = struct.unpack_from(">I4s", file, at)
        if not kind.isalpha():
            raise SyntaxError(f"PNG damaged at byte {at}: {kind!r} is no chunk")
        body = bytes(view[at + 8 : at + 8 + length])
        crc = file[at + 8 + length : at + 12 + length]
        at += 12 + length
        intact = len(body) == length and (not crc or crc == struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))
        if kind == b"IDAT":
            parts.data.append(body)  # damage in it is for the decoder to find
        elif kind in (b"acTL", b"fcTL", b"fdAT"):
            if intact or kind == b"fdAT":
                parts.animation.append((kind, body))
        elif kind in (b"IHDR", b"PLTE", b"tRNS"):
            if not intact:
                raise SyntaxError(f"PNG damaged: checksum of {kind.decode()} is wrong")
            _set_critical(parts, kind, body)
        elif kind == b"IEND":
            parts.ended = True
        elif intact:
            parts.others.append((kind, body))
        else:
            parts.notes.append(f"{kind.decode()} chunk damaged, left out")
        if kind == b"IDAT" and not any(name == b"IDAT" for name, _ in parts.animation):
            parts.animation.append((b"IDAT", b""))  # marks where the still picture stands among the frames
    return parts


def _set_critical(parts: _Parts, kind: bytes, body: bytes) -> None:
    if kind == b"IHDR":
        parts.ihdr = parts.ihdr or body
    elif kind == b"PLTE":
        parts.palette = body
    else:
        parts.transparency = body


def _header(ihdr: bytes | None) -> PngHeader:
    if ihdr is None or len(ihdr) != 13:
        raise SyntaxError("PNG without a header")
    width, height, depth, colour_type, compression, filters, interlace = struct.unpack(">IIBBBBB", ihdr)
    if depth not in _DEPTHS.get(colour_type, ()) or compression or filters or interlace > 1 or not width * height:
        raise SyntaxError(f"PNG header: {width}x{height} px, {depth} bits, colour type {colour_type} is not defined")
    return PngHeader(width, height, depth, colour_type, interlace)


def _frames(parts: list[tuple[bytes, bytes]], header: PngHeader) -> tuple[tuple[PngFrame, ...], int]:
    """Frames in order. One before the still picture's data takes that data, marked by data b"" here."""
    plays = 0
    controls: list[tuple[bytes, list[bytes]]] = []
    for kind, body in parts:
        if kind == b"acTL":
            plays = struct.unpack(">II", body)[1]
        elif kind == b"fcTL":
            controls.append((body, []))
        elif kind == b"fdAT" and controls:
            controls[-1][1].append(body[4:])
        elif kind == b"IDAT" and controls:
            controls[-1][1].append(b"")
    frames = []
    for control, data in controls:
        _, width, height, left, top, above, below, disposal, blend = struct.unpack(">5I2H2B", control)
        if not width * height or left + width > header.width or top + height > header.height or not data:
            raise ValueError(f"frame {len(frames)}: {width}x{height} px at {left}, {top}")
        duration = above / (below or 100) * 1000
        frames.append(PngFrame(width, height, left, top, duration, disposal, blend, b"".join(data)))
    if not frames:
        raise ValueError("no frames")
    return tuple(frames), plays
