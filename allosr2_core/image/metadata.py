"""What a file says besides its pixels, on its way into the result."""

import math
from dataclasses import dataclass, replace

from .exif import CleanExif, ExifDamage, clean_exif, resized_exif
from .picture_file import FileInfo
from .xmp import clean_xmp, resized_xmp


@dataclass(frozen=True)
class Metadata:
    """What a file says besides its pixels, ready to be written into the result."""

    exif: bytes = b""
    """TIFF-structured EXIF block with GPS; orientation 1, no thumbnail. b"": none."""
    xmp: bytes = b""
    """An XMP packet (UTF-8 XML). b"": none."""
    dpi: tuple[float, float] | None = None
    """Pixels an inch across and down."""
    text: tuple[tuple[str, str], ...] = ()
    """PNG text, keyword and value; the ComfyUI workflow is among it."""
    comment: bytes = b""
    """Of a JPEG or GIF."""
    icc_profile: bytes = b""
    """Only where the pixels are not sRGB: the profile that says what they are."""


@dataclass(frozen=True)
class Carried:
    """metadata: for the result; orientation: 1..8, how the stored pixels are to be turned; notes: what was damaged."""

    metadata: Metadata
    orientation: int
    notes: tuple[str, ...]


def carried(info: FileInfo, icc_profile: bytes) -> Carried:
    """What goes from a file into its result. icc_profile: the one the pixels still need, or b""."""
    notes: tuple[str, ...] = ()
    try:
        exif = clean_exif(info.exif)
    except ExifDamage as error:
        exif = CleanExif(b"")
        notes = (f"EXIF data damaged ({error}), left out, orientation not applied",)
    orientation = info.orientation if info.orientation != 1 else exif.orientation
    dpi = _sensible(info.dpi) or _sensible(exif.dpi)
    if dpi and orientation >= 5:
        dpi = dpi[1], dpi[0]
    metadata = Metadata(
        exif=exif.block,
        xmp=clean_xmp(info.xmp),
        dpi=dpi,
        text=info.text,
        comment=info.comment,
        icc_profile=icc_profile,
    )
    return Carried(metadata, orientation, notes)


def resized(metadata: Metadata, height: int, width: int) -> Metadata:
    """The same for a picture of height x width px."""
    return replace(
        metadata,
        exif=resized_exif(metadata.exif, height, width),
        xmp=resized_xmp(metadata.xmp, height, width),
    )


def _sensible(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    """Files without a resolution often say 0 or 1."""
    if dpi is None or not all(math.isfinite(value) and 1 < value < 1e6 for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])
