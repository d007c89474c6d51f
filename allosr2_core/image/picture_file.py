"""What every reader of a file format offers, whatever the format."""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from PIL import Image

Space = Literal["grey", "rgb", "cmyk", "lab"]
# What Pillow raises on data it cannot decode or write; SyntaxError is its name for a broken PNG or TIFF structure.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
    *(RuntimeError, AssertionError, AttributeError, ZeroDivisionError),  # AVIF, and Pillow on damaged directories
)


@dataclass(frozen=True)
class Header:
    """What a file is, read without decoding a pixel."""

    height: int
    """Upright (after the EXIF orientation), px, of the first frame."""
    width: int
    page_sizes: tuple[tuple[int, int], ...] = ()
    """Upright height and width of each page, px, where pages may differ; else ()."""
    frames: int = 1
    """Pictures that belong to an animation or are pages; 1 for a photograph with a second view or a video behind it."""
    animated: bool = False
    """True: an animation; False with frames > 1: pages of a TIFF."""
    transparent: bool = False
    """Has alpha in any form. The first frame of a GIF tells of itself only, and may come out opaque."""
    bits: int = 8
    """16 when load_image hands out more than 8 bits a channel, else 8."""
    grey: bool = False
    """Stored as one channel, or one and alpha."""
    loop: int = 0
    """Of an animation: how often it plays, 0 for ever."""

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each frame or page, px, the first alone where all are alike."""
        return self.page_sizes or ((self.height, self.width),)


@dataclass(frozen=True)
class Colours:
    """How a PNG describes its RGB without an ICC profile; None where it does not."""

    gamma: float | None = None
    """value = light ** gamma, as the gAMA chunk has it; None: the sRGB curve."""
    primaries: tuple[float, ...] | None = None
    """x, y of white, red, green, blue; None: sRGB's."""
    name: str = ""


@dataclass(frozen=True)
class Metadata:
    """What a file says besides its pixels."""

    exif: bytes = b""
    """TIFF-structured EXIF block. In a result it has no orientation and no thumbnail. b"": none."""
    xmp: bytes = b""
    """An XMP packet (UTF-8 XML). b"": none."""
    dpi: tuple[float, float] | None = None
    """Pixels an inch across and down."""
    text: tuple[tuple[str, str], ...] = ()
    """PNG text, keyword and value; the ComfyUI workflow is among it."""
    comment: bytes = b""
    """Of a JPEG or GIF."""
    icc_profile: bytes = b""
    """In a result only where the pixels are not sRGB: the profile that says what they are."""


@dataclass(frozen=True)
class FileInfo(Metadata):
    """The same as found in a file; `metadata.carried` makes it fit for the result."""

    colours: Colours | None = None
    orientation: int = 1
    """1..8, TIFF 6.0 tag 274."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """One frame in the file's own orientation and colours.

    values_HWC: uint8 or uint16 over their full range, or float32 0..1, with 1 (grey), 3 (rgb, lab) or 4 (cmyk)
    channels; Lab is float32 in its own units (L 0..100). alpha_HW: uint8, uint16 or float32, or None.
    """

    values_HWC: np.ndarray
    alpha_HW: np.ndarray | None = None
    space: Space = "rgb"
    bits: int = 8
    info: FileInfo = field(default_factory=FileInfo)
    duration_ms: float = 0.0
    notes: tuple[str, ...] = ()


class PictureFile(Protocol):
    """A file of one format, opened. Both raise AlloSR2Error, or what Pillow, struct and zlib raise on damage."""

    def header(self) -> Header:
        """From the file's header alone."""
        ...

    def decode(self, frame: int) -> Decoded:
        """Frame or page `frame`, which is in 0 .. header().frames - 1."""
        ...


def as_unit(values: np.ndarray) -> np.ndarray:
    """uint8, uint16 or float32 -> float32 0..1."""
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255.0)
    if values.dtype == np.uint16:
        return values.astype(np.float32) / np.float32(65535.0)
    return values.astype(np.float32, copy=False)
