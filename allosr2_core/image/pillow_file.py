"""What Pillow decodes on its own: WebP, BMP, PPM, AVIF, JPEG 2000, Targa; and its modes as arrays, for the others."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import AlloSR2Error
from .exif import ExifDamage, clean_exif
from .opening import pillow_picture
from .picture_file import Decoded, FileInfo, Header, Space


@dataclass(frozen=True)
class PillowFile:
    """A file Pillow opens; data: all of it."""

    path: Path
    data: bytes

    def header(self) -> Header:
        """See PictureFile."""
        with pillow_picture(io.BytesIO(self.data), self.path) as picture:
            info = info_of(picture)
            turned = orientation_of(info) >= 5
            frames = int(getattr(picture, "n_frames", 1))
            return Header(
                height=picture.width if turned else picture.height,
                width=picture.height if turned else picture.width,
                frames=frames,
                animated=frames > 1,
                transparent=picture.has_transparency_data,
                bits=16 if _is_deep(picture) else 8,
                grey=picture.mode in ("1", "L", "LA", "I", "F") or picture.mode.startswith("I;"),
                loop=int(picture.info.get("loop", 0)) if frames > 1 else 0,
            )

    def decode(self, frame: int) -> Decoded:
        """See PictureFile."""
        with pillow_picture(io.BytesIO(self.data), self.path) as picture:
            picture.seek(frame)
            lost = _lost_bits(picture, self.data)
            deep_HWC = self._ppm16(picture) if _is_ppm16(picture) else None
            if deep_HWC is not None:
                return Decoded(deep_HWC, bits=16)
            picture.load()
            values_HWC, alpha_HW, space = arrays(picture)
            note = f"{lost} bits a channel in the file, read as 8" if lost else ""
            return Decoded(
                values_HWC,
                alpha_HW,
                space,
                bits=8 if values_HWC.dtype == np.uint8 else 16,
                info=info_of(picture),
                duration_ms=float(picture.info.get("duration", 0) or 0),
                notes=(note,) if note else (),
            )

    def _ppm16(self, picture: Image.Image) -> np.ndarray:
        """Pillow keeps 8 bits of a colour PPM; its pixels are the rest of the file, in the order they are needed."""
        offset = int(getattr(picture, "tile")[0][2])  # noqa: B009  # only image files have tiles
        count = picture.height * picture.width * 3
        if len(self.data) < offset + 2 * count:
            raise OSError(f"image file is truncated ({len(self.data) - offset} of {2 * count} bytes)")
        values = np.frombuffer(self.data, dtype=">u2", count=count, offset=offset)
        return values.reshape(picture.height, picture.width, 3).astype(np.uint16)


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
    try:
        return info.orientation if info.orientation != 1 else clean_exif(info.exif).orientation
    except ExifDamage:
        return 1


def _as_bytes(value: object) -> bytes:
    return bytes(value) if isinstance(value, (bytes, bytearray)) else b""


def _is_deep(picture: Image.Image) -> bool:
    return picture.mode.startswith(("I", "F")) or _is_ppm16(picture)


def _is_ppm16(picture: Image.Image) -> bool:
    return picture.format == "PPM" and picture.mode == "RGB" and _ppm_maximum(picture) == ("ppm", 65535)


def _ppm_maximum(picture: Image.Image) -> tuple[str, int]:
    decoder, _, _, details = list(getattr(picture, "tile", [])[:1] or [("", None, 0, ())])[0]
    number = details[1] if isinstance(details, tuple) and len(details) == 2 else 255
    return str(decoder), int(number) if isinstance(number, int) else 255


def _lost_bits(picture: Image.Image, data: bytes) -> int:
    """Bits a channel of the file where Pillow hands out 8 of more, else 0."""
    if _is_deep(picture):
        return 0
    bits = 8
    if picture.format == "PPM":
        bits = _ppm_maximum(picture)[1].bit_length()
    elif picture.format == "JPEG2000":
        at = data.find(b"\xff\x4f\xff\x51")  # SOC, SIZ: Ssiz of the first component follows 40 bytes on
        bits = (data[at + 42] & 0x7F) + 1 if 0 <= at < len(data) - 42 else 8
    elif picture.format == "AVIF":
        at = data.find(b"av1C")
        flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
        bits = 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return bits if bits > 8 else 0
