"""What of a picture's metadata each format has a place for."""

from dataclasses import replace

from .exif import ExifDamage, clean_exif, resolution_exif
from .metadata import Metadata

# A JPEG segment has 65533 bytes for its data, the identifier in front of EXIF and XMP among them.
_SEGMENT = 65533
_ROOM_FOR_EXIF = _SEGMENT - len(b"Exif\0\0")
_ROOM_FOR_XMP = _SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0")


def fitted(metadata: Metadata, file_format: str) -> tuple[Metadata, tuple[str, ...]]:
    """What can be written as "PNG", "JPEG", "WEBP" or "TIFF", and a note for each thing that cannot."""
    notes: list[str] = []
    if file_format != "PNG" and metadata.text:
        names = ", ".join(dict.fromkeys(keyword for keyword, _ in metadata.text))
        notes.append(f"PNG text ({names:.60}) left out, {file_format} has no place for it")
        metadata = replace(metadata, text=())
    if file_format in ("WEBP", "TIFF") and metadata.comment:
        notes.append(f"comment left out, {file_format} has no place for it")
        metadata = replace(metadata, comment=b"")
    if file_format == "JPEG":
        if len(metadata.exif) > _ROOM_FOR_EXIF:
            notes.append(f"EXIF data left out, {len(metadata.exif)} bytes are too many for a JPEG")
            metadata = replace(metadata, exif=b"")
        if len(metadata.xmp) > _ROOM_FOR_XMP:
            notes.append(f"XMP data left out, {len(metadata.xmp)} bytes are too many for a JPEG")
            metadata = replace(metadata, xmp=b"")
        if len(metadata.comment) > _SEGMENT:
            notes.append(f"comment left out, {len(metadata.comment)} bytes are too many for a JPEG")
            metadata = replace(metadata, comment=b"")
    if file_format == "WEBP" and metadata.dpi is not None:
        if not metadata.exif:
            metadata = replace(metadata, exif=resolution_exif(metadata.dpi))
        elif not _has_resolution(metadata.exif):
            notes.append("resolution left out, WebP has no place for it")
        metadata = replace(metadata, dpi=None)
    return metadata, tuple(notes)


def _has_resolution(exif: bytes) -> bool:
    try:
        return clean_exif(exif).dpi is not None
    except ExifDamage:
        return False
