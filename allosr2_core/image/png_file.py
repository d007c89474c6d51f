"""PNG: every colour type and depth in, with all bits; 8 and 16 bits out.

Pillow decodes and encodes. To read, it gets a file made here of nothing but pixels: damage in a comment cannot cost the
picture, and text has no limits of size that refuse it. 16-bit colour it knows at 8 bits only, in and out.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin

from .geometry import check_size
from .metadata import Metadata
from .opening import pillow_picture
from .picture_file import DAMAGE, Colours, Decoded, FileInfo, Header
from .pillow_file import PillowFile, info_of, orientation_of
from .transfer import BT2020_PRIMARIES, P3_PRIMARIES, SRGB_PRIMARIES

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT")
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_GREY = (0, 4)
# Pillow keeps the first byte of two. Told that the other byte order is the file's, it hands out the second. Grey and
# alpha are four bytes a pixel, as RGBA of 8 bits, and come in one go.
_RAW_MODES = {0: ("I;16B",), 2: ("RGB;16B", "RGB;16L"), 4: ("RGBA",), 6: ("RGBA;16B", "RGBA;16L")}
_XMP_KEYWORD = "XML:com.adobe.xmp"
_XMP_START = b"http://ns.adobe.com/xap/1.0/\0"
# ImageMagick's older way to keep EXIF and XMP: as text in hexadecimal digits.
_RAW = ("Raw profile type exif", "Raw profile type APP1", "Raw profile type xmp")
# ITU-T H.273, as far as it is a picture for a screen like ours.
_PRIMARIES = {1: (SRGB_PRIMARIES, "BT.709"), 9: (BT2020_PRIMARIES, "BT.2020"), 12: (P3_PRIMARIES, "Display P3")}
_CURVES: dict[int, float | None] = {13: None, 8: 1.0, 4: 1 / 2.2, 5: 1 / 2.8}
_LEVEL = 4
_BAND = 1 << 20  # bytes of rows filtered at once


@dataclass(frozen=True)
class _Parts:
    """depth, colour_type: of IHDR. pixels: a PNG without anything else. info: what the rest says, damage noted."""

    depth: int
    colour_type: int
    pixels: bytes
    info: FileInfo


@dataclass(frozen=True)
class PngFile:
    """data: the whole file."""

    path: Path
    data: bytes

    @cached_property
    def _parts(self) -> _Parts:
        return _taken_apart(self.data, self.path)

    def header(self) -> Header:
        """See PictureFile."""
        parts = self._parts
        header = PillowFile(self.path, parts.pixels).header()
        if orientation_of(parts.info) >= 5:
            header = replace(header, height=header.width, width=header.height)
        return replace(header, bits=16 if self._is_deep else 8, grey=parts.colour_type in _GREY)

    def decode(self, frame: int) -> Decoded:
        """See PictureFile. Frames of an animation have 8 bits."""
        decoded = self._deep() if self._is_deep else PillowFile(self.path, self._parts.pixels).decode(frame)
        if decoded.bits == 16 and not self._is_deep:
            values_HWC, note = (decoded.values_HWC >> 8).astype(np.uint8), "16 bits a channel in the file, read as 8"
            decoded = replace(decoded, values_HWC=values_HWC, bits=8, notes=(note,))
        return replace(decoded, info=self._parts.info)

    @cached_property
    def _is_deep(self) -> bool:
        return self._parts.depth == 16 and PillowFile(self.path, self._parts.pixels).header().frames == 1

    def _deep(self) -> Decoded:
        parts = self._parts
        loads = [self._load(raw_mode) for raw_mode in _RAW_MODES[parts.colour_type]]
        samples, key = loads[0]
        if parts.colour_type == 4:
            samples = samples[..., 0::2].astype(np.uint16) << 8 | samples[..., 1::2]
        elif len(loads) == 2:
            samples = samples.astype(np.uint16) << 8 | loads[1][0]
        colours = 1 if parts.colour_type in _GREY else 3
        alpha_HW = samples[..., colours] if samples.shape[-1] > colours else None
        if key is not None and alpha_HW is None:
            alpha_HW = np.where((samples == np.array(key)).all(axis=-1), 0, 65535).astype(np.uint16)
        return Decoded(samples[..., :colours], alpha_HW, "grey" if colours == 1 else "rgb", bits=16)

    def _load(self, raw_mode: str) -> tuple[np.ndarray, int | tuple[int, ...] | None]:
        """(H, W, C) as Pillow unpacks them, and the transparent colour."""
        with pillow_picture(io.BytesIO(self._parts.pixels), self.path) as picture:
            if isinstance(picture, ImageFile.ImageFile):
                decoder, extents, offset, _ = picture.tile[0]
                tile: Any = (decoder, extents, offset, raw_mode)  # a plain tuple in older Pillows
                picture.tile = [picture.tile[0]._make(tile) if hasattr(picture.tile[0], "_make") else tile]
            picture.load()
            values = np.asarray(picture)
            return values if values.ndim == 3 else values[..., None], picture.info.get("transparency")


def chunk(kind: bytes, data: bytes) -> bytes:
    """Length, name, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _chunks(file: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Name, data, whether both are as they were written; IEND, if it is there, is the last."""
    at = len(SIGNATURE)
    while at + 8 <= len(file):
        length, kind = struct.unpack_from(">I4s", file, at)
        if not kind.isalpha():
            raise SyntaxError(f"PNG damaged at byte {at}: {kind!r} is no chunk")
        body, check = file[at + 8 : at + 8 + length], file[at + 8 + length : at + 12 + length]
        expected = struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
        yield kind, body, len(body) == length and check in (b"", expected)
        if kind == b"IEND":
            return
        at += 12 + length


def _taken_apart(file: bytes, path: Path) -> _Parts:
    """Raises SyntaxError when what the pixels need is damaged."""
    header, pixels, others = b"", [], []
    notes = ["the end of the file (IEND) is missing, the picture is complete"]
    for kind, body, intact in _chunks(file):
        if kind in (b"IHDR", b"PLTE", b"tRNS") and not intact:
            raise SyntaxError(f"PNG damaged: checksum of {kind.decode()} is wrong")
        if kind == b"IHDR":
            header = header or body
        elif kind == b"tRNS" and header[8:10] in (b"\1\0", b"\2\0", b"\4\0") and len(body) == 2:
            # Pillow scales greys of 1, 2 and 4 bits to 8, and leaves the transparent one as it is.
            scale = 255 // ((1 << header[8]) - 1)
            pixels.append(chunk(kind, struct.pack(">H", int.from_bytes(body, "big") * scale & 0xFFFF)))
        elif kind in _PIXELS:
            pixels.append(chunk(kind, body))  # damage in it is for the decoder to find
        elif kind == b"IEND":
            notes.pop(0)
        elif intact:
            others.append((kind, body))
        else:
            notes.append(f"{kind.decode()} chunk damaged, left out")
    if len(header) != 13:
        raise SyntaxError("PNG without a header")
    width, height, depth, colour_type, compression, filters, interlace = struct.unpack(">IIBBBBB", header)
    if depth not in _DEPTHS.get(colour_type, ()) or compression or filters or interlace > 1 or not width * height:
        raise SyntaxError(f"PNG header: {width}x{height} px, {depth} bits, colour type {colour_type} is not defined")
    check_size(height, width, what=f"{path}: the picture")
    png = b"".join((SIGNATURE, chunk(b"IHDR", header), *pixels, chunk(b"IEND", b"")))
    return _Parts(depth, colour_type, png, _info(others, notes, path))


def _info(chunks: list[tuple[bytes, bytes]], notes: list[str], path: Path) -> FileInfo:
    """What Pillow finds in them, beside a picture of one pixel."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    shell = SIGNATURE + header + b"".join(chunk(kind, body) for kind, body in chunks) + pixel
    try:
        with pillow_picture(io.BytesIO(shell), path) as picture:
            picture.load()
            info, found, text = info_of(picture), picture.info, dict(getattr(picture, "text", {}))
    except DAMAGE as error:
        return FileInfo(notes=(*notes, f"metadata damaged ({error}), left out"))
    text.pop(_XMP_KEYWORD, None)
    for keyword in _RAW:
        block = _unhexed(text.pop(keyword, ""))
        if keyword.endswith("xmp") or block.startswith(_XMP_START):
            info = replace(info, xmp=info.xmp or block.removeprefix(_XMP_START))
        else:
            info = replace(info, exif=info.exif or block)
    texts = tuple((str(keyword), str(value)) for keyword, value in text.items() if value)
    profile, colours = _colours(dict(chunks).get(b"cICP", b""), found, info.icc_profile, notes)
    return replace(info, text=texts, icc_profile=profile, colours=colours, notes=(*notes, *info.notes))


def _unhexed(value: str) -> bytes:
    """ "\\nexif\\n    1234\\n4578..." -> bytes."""
    try:
        return bytes.fromhex("".join(value.split("\n")[3:]))
    except ValueError:
        return b""


def _colours(cicp: bytes, found: dict[Any, Any], profile: bytes, notes: list[str]) -> tuple[bytes, Colours | None]:
    """ICC profile and description; PNG 3 (11.3.2): cICP before iCCP before sRGB before gAMA and cHRM."""
    if len(cicp) == 4:
        if cicp[0] in _PRIMARIES and cicp[1] in _CURVES and cicp[2:] == b"\0\1":
            primaries, name = _PRIMARIES[cicp[0]]
            return b"", Colours(_CURVES[cicp[1]], primaries, f"{name} (cICP)")
        notes.append(f"colour description cICP {tuple(cicp)} not supported, colours read as they are")
        return b"", None
    gamma, primaries = found.get("gamma"), found.get("chromaticity")
    if "icc_profile" in found or "srgb" in found or not isinstance(gamma, float):
        return profile, None
    if primaries is not None and not (len(primaries) == 8 and all(primaries[1::2])):
        notes.append("cHRM chunk damaged, left out")
        primaries = None
    return b"", Colours(gamma, primaries, f"gamma {gamma:g} (gAMA)")


def png_settings(metadata: Metadata) -> dict[str, Any]:
    """What Pillow's `save` takes."""
    info = PngImagePlugin.PngInfo()
    if metadata.xmp:
        info.add(b"iTXt", _XMP_KEYWORD.encode() + b"\0\0\0\0\0" + metadata.xmp)
    for keyword, value in metadata.text:
        info.add_text(keyword, value)
    if metadata.comment and not any(keyword == "Comment" for keyword, _ in metadata.text):
        info.add_text("Comment", metadata.comment.decode("utf-8", errors="replace"))
    found = {"exif": metadata.exif, "dpi": metadata.dpi, "icc_profile": metadata.icc_profile}
    return {"pnginfo": info, "compress_level": _LEVEL, **{name: value for name, value in found.items() if value}}


def write_deep_png(file: IO[bytes], pixels_HWC: np.ndarray, metadata: Metadata) -> None:
    """pixels_HWC: (H, W, 1 grey | 2 grey and alpha | 3 | 4) uint16. Pillow writes all but the pixels."""
    height, width, channels = pixels_HWC.shape
    shell = io.BytesIO()
    Image.new("L", (1, 1)).save(shell, format="PNG", **png_settings(metadata))
    file.write(SIGNATURE)
    for kind, body, _ in _chunks(shell.getvalue()):
        if kind == b"IHDR":
            colour_type = (0, 4, 2, 6)[channels - 1]
            file.write(chunk(kind, struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)))
        elif kind == b"IDAT":
            file.writelines(chunk(kind, data) for data in _packed(pixels_HWC))
        else:
            file.write(chunk(kind, body))


def _packed(pixels_HWC: np.ndarray) -> Iterator[bytes]:
    """The deflated, filtered rows, in pieces."""
    height, width, channels = pixels_HWC.shape
    size = 2 * channels
    rows = max(1, _BAND // (width * size))
    deflater = zlib.compressobj(_LEVEL)
    above = np.zeros((1, width * size), dtype=np.uint8)
    for top in range(0, height, rows):
        band = np.ascontiguousarray(pixels_HWC[top : top + rows].astype(">u2")).view(np.uint8)
        band = band.reshape(len(band), width * size)
        yield deflater.compress(_filtered(band, above, size).tobytes())
        above = band[-1:]
    yield deflater.flush()


def _filtered(rows: np.ndarray, above: np.ndarray, size: int) -> np.ndarray:
    """(rows, 1 + bytes), filter 4 (Paeth): less the one of three neighbours that is nearest to a + b - c."""
    up = np.concatenate((above, rows[:-1]))
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, size:], corner[:, size:] = rows[:, :-size], up[:, :-size]
    a, b, c = left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16)
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
    return np.pad(rows - nearest, ((0, 0), (1, 0)), constant_values=4)  # modulo 256, as it should be
