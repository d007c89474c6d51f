"""What Pillow decodes on its own: WebP, GIF, animated PNG, BMP, PPM, AVIF, JPEG 2000, Targa; its modes as arrays."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import AlloSR2Error
from .geometry import check_size
from .metadata import clean_exif
from .opening import pillow_picture
from .picture_file import Decoded, FileInfo, Header, Space

_CLEARED = 2  # of a GIF's frame: gone before the next one
_OVER = 1  # of an APNG's frame: laid over what is there, not in its place


@dataclass(frozen=True)
class PillowFile:
    """A file Pillow opens; data: all of it."""

    path: Path
    data: bytes

    def header(self) -> Header:
        """See PictureFile."""
        with pillow_picture(io.BytesIO(self.data), self.path) as picture:
            turned = orientation_of(info_of(picture)) >= 5
            frames = int(getattr(picture, "n_frames", 1)) - _first(picture)
            return Header(
                height=picture.width if turned else picture.height,
                width=picture.height if turned else picture.width,
                frames=frames,
                animated=frames > 1,
                transparent=picture.has_transparency_data,
                bits=16 if _is_deep(picture, _file_bits(picture, self.data)) else 8,
                grey=picture.mode in ("1", "L", "LA", "I", "F") or picture.mode.startswith("I;"),
                loop=_plays(picture) if frames > 1 else 0,
            )

    def decode(self, frame: int) -> Decoded:
        """See PictureFile."""
        with pillow_picture(io.BytesIO(self.data), self.path) as picture:
            for number in range(1, frame + _first(picture) + 1):
                _advance(picture, number)
                check_size(picture.height, picture.width, what=f"{self.path}: the picture")
            bits = _file_bits(picture, self.data)
            lost = bits > 8 and not _is_deep(picture, bits)
            if _is_ppm16(picture, bits):
                return Decoded(self._ppm16(picture), bits=16)
            picture.load()
            values_HWC, alpha_HW, space = arrays(picture)
            if picture.format == "GIF" and alpha_HW is not None and bool((alpha_HW == 255).all()):
                alpha_HW = None  # most have a transparent colour only to leave what is there
            return Decoded(
                values_HWC,
                alpha_HW,
                space,
                bits=8 if values_HWC.dtype == np.uint8 else 16,
                info=info_of(picture),
                duration_ms=float(picture.info.get("duration", 0) or 0),
                notes=(f"{bits} bits a channel in the file, read as 8",) if lost else (),
            )

    def _ppm16(self, picture: Image.Image) -> np.ndarray:
        """Pillow keeps 8 bits of a colour PPM; its pixels are the rest of the file, in the order they are needed."""
        offset = int(getattr(picture, "tile")[0][2])  # noqa: B009  # only image files have tiles
        count = picture.height * picture.width * 3
        if len(self.data) < offset + 2 * count:
            raise OSError(f"image file is truncated ({len(self.data) - offset} of {2 * count} bytes)")
        values = np.frombuffer(self.data, dtype=">u2", count=count, offset=offset)
        return values.reshape(picture.height, picture.width, 3).astype(np.uint16)


def _first(picture: Image.Image) -> int:
    """Where the frames begin: an APNG may have a picture beside them, which Pillow counts."""
    return 1 if getattr(picture, "default_image", False) else 0


def _plays(picture: Image.Image) -> int:
    """How often an animation is shown, 0 for ever. A GIF says how often again, and once when it says nothing."""
    loop = picture.info.get("loop")
    if picture.format == "GIF":
        return 1 if loop is None else int(loop) + 1 if loop else 0
    return int(loop or 0)


def _advance(picture: Any, number: int) -> None:
    """The next frame, as shown, where Pillow shows it otherwise than browsers do.

    A GIF's frame that is cleared leaves transparency, not the palette's background; what an APNG lays over the last
    frame leaves an opaque pixel opaque.
    """
    if picture.format == "GIF" and picture.disposal_method == _CLEARED:
        picture.load()
        if picture.mode != "RGBA":
            picture.im, picture._mode = picture.convert("RGBA").im, "RGBA"
            picture.info.pop("transparency", None)
        left, top, right, bottom = picture.dispose_extent
        picture.dispose = Image.new("RGBA", (right - left, bottom - top)).im
    picture.seek(number)
    if picture.format == "PNG" and picture.mode == "RGBA" and picture.blend_op == _OVER:
        below = Image.new("RGBA", picture.size)
        below.im = picture.im.copy()
        picture.blend_op = 0
        picture.load()
        below.alpha_composite(picture.crop(picture.dispose_extent), picture.dispose_extent[:2])
        picture.paste(below)


def arrays(picture: Image.Image) -> tuple[np.ndarray, np.ndarray | None, Space]:
    """A loaded Pillow picture -> values (H, W, C), alpha (H, W) or None, and what the values are; see Decoded.

    Raises AlloSR2Error for whole numbers above 65535 or below 0, and for fractions outside 0..1.
    """
    if picture.mode == "CMYK":
        return np.asarray(picture), None, "cmyk"
    if picture.mode == "F":
        return unit_floats(np.asarray(picture))[..., None], None, "grey"
    if picture.mode.startswith("I"):
        grey_HW = np.asarray(picture).astype(np.int64)
        low, high = int(grey_HW.min()), int(grey_HW.max())
        if low < 0 or high > 65535:
            raise AlloSR2Error(f"expected grey values in 0..65535, got {low}..{high}")
        return grey_HW.astype(np.uint16)[..., None], None, "grey"
    alpha = picture.has_transparency_data
    if picture.mode in ("1", "L", "LA", "La"):
        values_HWC = np.asarray(picture.convert("LA" if alpha else "L"))
        values_HWC = values_HWC if alpha else values_HWC[..., None]
        return values_HWC[..., :1], values_HWC[..., 1] if alpha else None, "grey"
    values_HWC = np.asarray(picture.convert("RGBA" if alpha else "RGB"))
    return values_HWC[..., :3], values_HWC[..., 3] if alpha else None, "rgb"


def unit_floats(values: np.ndarray) -> np.ndarray:
    """Checks that fractions are in 0..1 (NaN is not) and returns them as float32."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):
        raise AlloSR2Error(f"expected values in 0..1, got {low:g}..{high:g}")
    return values.astype(np.float32)


def info_of(picture: Image.Image) -> FileInfo:
    """What Pillow found besides pixels. Its `info` may hold anything: each field is checked."""
    found: dict[Any, Any] = picture.info
    dpi = found.get("dpi")
    profile = found.get("icc_profile", b"")
    xmp = found.get("xmp", b"")
    return FileInfo(
        exif=_as_bytes(found.get("exif")),
        xmp=xmp.encode() if isinstance(xmp, str) else _as_bytes(xmp),
        dpi=(float(dpi[0]), float(dpi[1])) if isinstance(dpi, tuple) and len(dpi) == 2 else None,
        comment=_as_bytes(found.get("comment")),
        icc_profile=_as_bytes(profile),
        notes=("colour profile incomplete, not used",) if profile is None else (),
    )


def orientation_of(info: FileInfo) -> int:
    """1..8; 1 when the EXIF block is damaged."""
    return info.orientation if info.orientation != 1 else clean_exif(info.exif).orientation


def _as_bytes(value: object) -> bytes:
    return bytes(value) if isinstance(value, (bytes, bytearray)) else b""


def _is_deep(picture: Image.Image, bits: int) -> bool:
    return picture.mode.startswith(("I", "F")) or _is_ppm16(picture, bits)


def _is_ppm16(picture: Image.Image, bits: int) -> bool:
    return picture.format == "PPM" and picture.mode == "RGB" and bits == 16


def _file_bits(picture: Any, data: bytes) -> int:
    """Bits a channel, where Pillow may hand out fewer; else 8."""
    if picture.format == "PNG":
        return data[24]  # of IHDR
    if picture.format == "PPM":
        decoder, _, _, details = picture.tile[0]
        return int(details[1]).bit_length() if decoder == "ppm" else 8
    if picture.format == "JPEG2000":
        at = data.find(b"\xff\x4f\xff\x51")  # SOC, SIZ: Ssiz of the first component follows 40 bytes on
        return (data[at + 42] & 0x7F) + 1 if 0 <= at < len(data) - 42 else 8
    if picture.format == "AVIF":
        at = data.find(b"av1C")
        flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return 8
