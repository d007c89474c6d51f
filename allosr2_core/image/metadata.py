"""What a file says besides its pixels, on its way into the result: corrected, and fitted to the format."""

import math
import re
import warnings
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from .picture_file import DAMAGE, FileInfo, Metadata

EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 274, 282, 283, 296
_EXIF_DIRECTORY, _GPS_DIRECTORY, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
# Description, camera, resolution, software, date, artist, host, copyright, rating, the XP fields of Windows. What else
# stands beside them is how the pixels of the old file were laid out: wrong in the result.
_DESCRIPTIVE = (269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
# In XMP: pictures and videos of the old file that a viewer would look for behind the result.
_FLAGS = (b"GCamera:MotionPhoto", b"GCamera:MicroVideo", b"Camera:MotionPhoto", b"Camera:MicroVideo")
_REMOVED = (b"xmpNote:HasExtendedXMP", b"hdrgm:Version")
_SIZES = ((b"exif:PixelXDimension", b"exif:PixelYDimension"), (b"tiff:ImageWidth", b"tiff:ImageLength"))
# Bytes of a JPEG segment; of EXIF and XMP there is an identifier before them.
_SEGMENT = 65533
_ROOM = {
    "exif": _SEGMENT - len(EXIF_PREFIX),
    "xmp": _SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0"),
    "comment": _SEGMENT,
}
_THUMBNAILS, _THUMBNAILS_END = re.compile(rb"<xmp:Thumbnails\b"), re.compile(rb"</xmp:Thumbnails\s*>")
_NAMES = {"exif": "EXIF data", "xmp": "XMP data", "comment": "comment"}


@dataclass(frozen=True)
class Carried:
    """metadata: for the result; orientation: 1..8, how the stored pixels are to be turned; notes: what was damaged."""

    metadata: Metadata
    orientation: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CleanExif:
    """A block that describes the upright picture, and what it said about the file it came from."""

    block: bytes = b""
    orientation: int = 1
    """1..8, as found."""
    dpi: tuple[float, float] | None = None
    """Pixels an inch across and down the stored, not yet upright, picture."""
    notes: tuple[str, ...] = ()


def carried(info: FileInfo, icc_profile: bytes) -> Carried:
    """What goes from a file into its result. icc_profile: the one the pixels still need, or b""."""
    exif = clean_exif(info.exif)
    orientation = info.orientation if info.orientation != 1 else exif.orientation
    dpi = _sensible(info.dpi) or _sensible(exif.dpi)
    if dpi and orientation >= 5:
        dpi = dpi[1], dpi[0]
    metadata = Metadata(exif.block, _clean_xmp(info.xmp), dpi, info.text, info.comment, icc_profile)
    return Carried(metadata, orientation, exif.notes)


def fitted(metadata: Metadata, file_format: str, height: int, width: int) -> tuple[Metadata, tuple[str, ...]]:
    """What can be written as "PNG", "JPEG", "WEBP" or "TIFF" of a picture of that size; a note for what cannot."""
    exif, xmp = _resized_exif(metadata.exif, height, width), _resized_xmp(metadata.xmp, height, width)
    metadata = replace(metadata, exif=exif, xmp=xmp)
    notes: list[str] = []
    if file_format != "PNG" and metadata.text:
        names = ", ".join(dict.fromkeys(keyword for keyword, _ in metadata.text))
        notes.append(f"PNG text ({names:.60}) left out, {file_format} has no place for it")
        metadata = replace(metadata, text=())
    if file_format in ("WEBP", "TIFF") and metadata.comment:
        notes.append(f"comment left out, {file_format} has no place for it")
        metadata = replace(metadata, comment=b"")
    for field, room in _ROOM.items() if file_format == "JPEG" else ():
        length = len(getattr(metadata, field))
        if length > room:
            notes.append(f"{_NAMES[field]} left out, {length} bytes are too many for a JPEG")
            metadata = replace(metadata, **{field: b""})
    if file_format == "WEBP" and metadata.dpi is not None:
        if not metadata.exif:
            across, down = (IFDRational(round(value * 1000), 1000) for value in metadata.dpi)
            exif = _packed({_X_RESOLUTION: across, _Y_RESOLUTION: down, _RESOLUTION_UNIT: 2})
            metadata = replace(metadata, exif=exif)
        elif clean_exif(metadata.exif).dpi is None:
            notes.append("resolution left out, WebP has no place for it")
        metadata = replace(metadata, dpi=None)
    return metadata, tuple(notes)


def clean_exif(exif: bytes | Image.Exif) -> CleanExif:
    """The descriptive tags and the EXIF and GPS directories, upright; what is damaged is left out, with a note."""
    clean, damage = CleanExif(), ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            block = exif if isinstance(exif, Image.Exif) else _loaded(exif)
            found = block.get(_ORIENTATION)
            orientation = found if isinstance(found, int) and found in range(1, 9) else 1
            clean = CleanExif(orientation=orientation, dpi=_dpi(block))
            tags = exif_tags(block)
            if orientation >= 5:  # what was across is down in the upright picture
                exchanged = {_X_RESOLUTION: tags.get(_Y_RESOLUTION), _Y_RESOLUTION: tags.get(_X_RESOLUTION)}
                tags |= {tag: value for tag, value in exchanged.items() if value is not None}
            clean = replace(clean, block=_packed(tags, block.endian))
        except DAMAGE as error:
            damage = str(error) or type(error).__name__
    damage = damage or (str(caught[0].message).strip() if caught else "")
    return replace(clean, notes=(f"EXIF data damaged ({damage}), left out where it is",)) if damage else clean


def exif_tags(block: Image.Exif | bytes) -> dict[int, Any]:
    """The descriptive tags, with the EXIF and GPS directories as dicts. Raises and warns what Pillow does on damage."""
    block = _loaded(block) if isinstance(block, bytes) else block
    tags: dict[int, Any] = {}
    for tag in _DESCRIPTIVE:
        value = block.get(tag)
        # tifffile and ImageJ describe the size and number of pages: wrong in the result.
        if value is not None and not (tag == 270 and str(value).startswith(('{"shape', "ImageJ="))):
            tags[tag] = value.encode("latin-1") if isinstance(value, str) else value  # Pillow writes ? for umlauts
    for pointer in (_EXIF_DIRECTORY, _GPS_DIRECTORY):
        inner = dict(block.get_ifd(pointer))
        inner.pop(_INTEROPERABILITY, None)  # a directory of its own that says which file names are right
        if inner:
            tags[pointer] = inner
    return tags


def _loaded(exif: bytes) -> Image.Exif:
    block = Image.Exif()
    block.load(exif)
    return block


def _packed(tags: dict[int, Any], order: str | None = None) -> bytes:
    """order: maker notes have the byte order of the block they come from."""
    block = Image.Exif()
    block.endian = order
    block.update(tags)
    return block.tobytes().removeprefix(EXIF_PREFIX) if tags else b""


def _dpi(block: Image.Exif) -> tuple[float, float] | None:
    unit = block.get(_RESOLUTION_UNIT, 2)
    if _X_RESOLUTION not in block or _Y_RESOLUTION not in block or unit not in (2, 3):
        return None
    factor = 2.54 if unit == 3 else 1.0
    try:
        return float(block[_X_RESOLUTION]) * factor, float(block[_Y_RESOLUTION]) * factor
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _sensible(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    """Files without a resolution often say 0 or 1."""
    if dpi is None or not all(math.isfinite(value) and 1 < value < 1e6 for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])


def _resized_exif(exif: bytes, height: int, width: int) -> bytes:
    """The block with PixelXDimension and PixelYDimension of the result, px, where it has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tags = exif_tags(exif)
            inner = tags.get(_EXIF_DIRECTORY, {})
            sizes = {tag: size for tag, size in ((_PIXEL_WIDTH, width), (_PIXEL_HEIGHT, height)) if tag in inner}
            inner.update(sizes)
            return _packed(tags, "<" if exif[:2] == b"II" else ">") if sizes else exif
        except DAMAGE:  # damaged: nothing in it to correct
            return exif


def _clean_xmp(xmp: bytes) -> bytes:
    """tiff:Orientation 1, no thumbnails, no promise of a video, a gain map or a further packet that is not there."""
    xmp = _replaced(xmp.rstrip(b"\0"), b"tiff:Orientation", b"1")
    xmp = _without_thumbnails(xmp)
    for name in _FLAGS:
        xmp = _replaced(xmp, name, b"0")
    for name in _REMOVED:
        xmp = re.sub(rb"\s" + name + rb"\s*=\s*(\"[^\"]*\"|'[^']*')", b"", xmp)
    return xmp


def _without_thumbnails(xmp: bytes) -> bytes:
    """Without what stands between each first start and the end after it; one search would go on from every start."""
    kept, at = [], 0
    while (first := _THUMBNAILS.search(xmp, at)) and (last := _THUMBNAILS_END.search(xmp, first.end())):
        kept.append(xmp[at : first.start()])
        at = last.end()
    return b"".join((*kept, xmp[at:]))


def _resized_xmp(xmp: bytes, height: int, width: int) -> bytes:
    for across, down in _SIZES:
        xmp = _replaced(xmp, across, str(width).encode())
        xmp = _replaced(xmp, down, str(height).encode())
    return xmp


def _replaced(xmp: bytes, name: bytes, value: bytes) -> bytes:
    """RDF has two spellings of a property: an attribute and an element."""
    xmp = re.sub(rb"(\b" + name + rb"\s*=\s*)(\"[^\"]*\"|'[^']*')", rb'\g<1>"' + value + b'"', xmp)
    return re.sub(rb"(<" + name + rb"\s*>)[^<]*(?=</" + name + rb"\s*>)", rb"\g<1>" + value, xmp)
