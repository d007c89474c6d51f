"""What a PNG says besides its pixels: text, EXIF, XMP, resolution, colours."""

import re
import struct
import zlib
from collections.abc import Iterator

from .picture_file import Colours, FileInfo
from .png_chunks import PngChunks, inflated
from .transfer import BT2020_PRIMARIES, P3_PRIMARIES, SRGB_PRIMARIES

XMP_KEYWORD = "XML:com.adobe.xmp"
_INCH = 0.0254
# ITU-T H.273, as far as it is a picture for a screen like ours.
_PRIMARIES = {1: (SRGB_PRIMARIES, "BT.709"), 9: (BT2020_PRIMARIES, "BT.2020"), 12: (P3_PRIMARIES, "Display P3")}
_CURVES: dict[int, float | None] = {13: None, 8: 1.0, 4: 1 / 2.2, 5: 1 / 2.8}
# ImageMagick's older way to keep EXIF and XMP: as text in hexadecimal digits.
_RAW = re.compile(r"Raw profile type (exif|APP1|xmp)", re.IGNORECASE)


def png_info(chunks: PngChunks) -> FileInfo:
    """Damaged fields are left out and noted."""
    found = dict(chunks.others)
    notes: list[str] = []
    exif, xmp = found.get(b"eXIf", b""), b""
    text: list[tuple[str, str]] = []
    for keyword, value in _texts(chunks, notes):
        raw = _RAW.fullmatch(keyword)
        if keyword == XMP_KEYWORD:
            xmp = value.encode()
        elif raw:
            block = _unhexed(value)
            if raw[1].lower() == "xmp" or block.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                xmp = xmp or block.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")
            else:
                exif = exif or block
        else:
            text.append((keyword, value))
    profile, colours = _colours(found, notes)
    return FileInfo(
        exif=exif, xmp=xmp, dpi=_dpi(found), text=tuple(text), icc_profile=profile, colours=colours, notes=tuple(notes)
    )


def _texts(chunks: PngChunks, notes: list[str]) -> Iterator[tuple[str, str]]:
    for kind, body in chunks.others:
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        try:
            keyword, rest = body.split(b"\0", 1)
            if kind == b"zTXt":
                rest = inflated(rest[1:])
            elif kind == b"iTXt":
                packed, rest = rest[0], rest[2:]
                rest = rest.split(b"\0", 2)[2]
                rest = inflated(rest) if packed else rest
            yield keyword.decode("latin-1"), rest.decode("utf-8" if kind == b"iTXt" else "latin-1")
        except (ValueError, IndexError, zlib.error):
            notes.append(f"{kind.decode()} chunk damaged, left out")


def _unhexed(value: str) -> bytes:
    """ "\\nexif\\n    1234\\n4578..." -> bytes; what is no hexadecimal digit at its end ends it."""
    lines = value.strip().split("\n", 2)
    try:
        return bytes.fromhex(lines[2]) if len(lines) == 3 else b""
    except ValueError:
        return b""


def _dpi(found: dict[bytes, bytes]) -> tuple[float, float] | None:
    body = found.get(b"pHYs", b"")
    if len(body) != 9 or body[8] != 1:
        return None
    across, down = struct.unpack_from(">II", body)
    return across * _INCH, down * _INCH


def _colours(found: dict[bytes, bytes], notes: list[str]) -> tuple[bytes, Colours | None]:
    """ICC profile and description; PNG 3 (11.3.2): cICP before iCCP before sRGB before gAMA and cHRM."""
    cicp = found.get(b"cICP", b"")
    if len(cicp) == 4:
        if cicp[0] in _PRIMARIES and cicp[1] in _CURVES and cicp[2] == 0 and cicp[3] == 1:
            primaries, name = _PRIMARIES[cicp[0]]
            return b"", Colours(_CURVES[cicp[1]], primaries, f"{name} (cICP)")
        notes.append(f"colour description cICP {tuple(cicp)} not supported, colours read as they are")
        return b"", None
    if b"iCCP" in found:
        try:
            return inflated(found[b"iCCP"].split(b"\0", 1)[1][1:]), None
        except (ValueError, IndexError, zlib.error):
            notes.append("colour profile damaged, not used")
            return b"", None
    gamma = found.get(b"gAMA", b"")
    if b"sRGB" in found or len(gamma) != 4:
        return b"", None
    value = struct.unpack(">I", gamma)[0] / 100000
    chroma = found.get(b"cHRM", b"")
    primaries = tuple(v / 100000 for v in struct.unpack(">8I", chroma)) if len(chroma) == 32 else None
    if primaries is not None and not all(primaries[1::2]):
        notes.append("cHRM chunk damaged, left out")
        primaries = None
    return b"", Colours(value, primaries, f"gamma {value:g} (gAMA)")
