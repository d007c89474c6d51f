"""XMP packets: what they say about the picture's shape, corrected for the result."""

import re

# Pictures and videos of the old file that a viewer would look for behind the result.
_FLAGS = (b"GCamera:MotionPhoto", b"GCamera:MicroVideo", b"Camera:MotionPhoto", b"Camera:MicroVideo")
_REMOVED = (b"xmpNote:HasExtendedXMP", b"hdrgm:Version")
_SIZES = ((b"exif:PixelXDimension", b"exif:PixelYDimension"), (b"tiff:ImageWidth", b"tiff:ImageLength"))


def clean_xmp(xmp: bytes) -> bytes:
    """tiff:Orientation 1, no thumbnails, no promise of a video, a gain map or a further packet that is not there."""
    xmp = _replaced(xmp.rstrip(b"\0"), b"tiff:Orientation", b"1")
    xmp = re.sub(rb"<xmp:Thumbnails\b.*?</xmp:Thumbnails\s*>", b"", xmp, flags=re.DOTALL)
    for name in _FLAGS:
        xmp = _replaced(xmp, name, b"0")
    for name in _REMOVED:
        xmp = re.sub(rb"\s" + name + rb"\s*=\s*(\"[^\"]*\"|'[^']*')", b"", xmp)
    return xmp


def resized_xmp(xmp: bytes, height: int, width: int) -> bytes:
    """The sizes it names, px, set to the result's."""
    for across, down in _SIZES:
        xmp = _replaced(xmp, across, str(width).encode())
        xmp = _replaced(xmp, down, str(height).encode())
    return xmp


def _replaced(xmp: bytes, name: bytes, value: bytes) -> bytes:
    """RDF has two spellings of a property: an attribute and an element."""
    xmp = re.sub(rb"(\b" + name + rb"\s*=\s*)(\"[^\"]*\"|'[^']*')", rb'\g<1>"' + value + b'"', xmp)
    return re.sub(rb"(<" + name + rb"\s*>)[^<]*(?=</" + name + rb"\s*>)", rb"\g<1>" + value, xmp)
