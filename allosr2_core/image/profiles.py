"""Colours of a file -> sRGB: by its ICC profile (LittleCMS at 8 bits, greys by their curve), or by its description."""

import io
import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from .picture_file import Decoded, as_unit
from .transfer import described_to_srgb, in_blocks, is_srgb, lab_to_srgb, lightness_to_light, srgb_encode

_SAME = 2  # of 255: how far apart two conversions to sRGB may be that are both right
_SPACE_OF = {"grey": "GRAY", "rgb": "RGB", "cmyk": "CMYK"}


class ProfileDamage(ValueError):
    """The profile cannot be used; the message says why."""


@dataclass(frozen=True)
class Converted:
    """values_HWC: float32 0..1, 1 (grey) or 3 channels, sRGB unless icc_profile says what else they are."""

    values_HWC: np.ndarray
    note: str = ""
    icc_profile: bytes = b""


def to_srgb(decoded: Decoded) -> Converted:
    """Convert where the file says that it is not sRGB. A profile that cannot be used changes nothing and is noted."""
    values_HWC, profile = decoded.values_HWC, decoded.info.icc_profile
    if decoded.space == "lab":
        return Converted(lab_to_srgb(values_HWC), "CIE Lab converted to sRGB")
    colours = decoded.info.colours
    if colours is not None and decoded.space in ("rgb", "grey"):
        if is_srgb(colours):
            return Converted(as_unit(values_HWC))
        try:
            return Converted(described_to_srgb(as_unit(values_HWC), colours), f"{colours.name} converted to sRGB")
        except ValueError as error:
            return Converted(as_unit(values_HWC), f"colour description damaged ({error}), colours read as they are")
    if not profile:
        return _plain(decoded)
    try:
        found = _colour_space(profile)
        if decoded.space == "grey" and found == "GRAY":
            return _grey(values_HWC, profile)
        if found == _SPACE_OF[decoded.space]:
            return _cmyk(values_HWC, profile) if found == "CMYK" else _rgb(decoded, profile)
        if decoded.space == "grey" and found == "RGB":
            return _rgb(decoded, profile)
        reason = f"colour profile is for {found}, the pixels are {decoded.space}"
    except (ProfileDamage, ImageCms.PyCMSError, OSError, ValueError) as error:
        reason = f"colour profile damaged ({str(error).strip() or type(error).__name__})"
    plain = _plain(decoded)
    return Converted(plain.values_HWC, "; ".join(filter(None, (f"{reason}, not used", plain.note))))


def _plain(decoded: Decoded) -> Converted:
    if decoded.space != "cmyk":
        return Converted(as_unit(decoded.values_HWC))
    rgb = np.asarray(_picture(_eight_bits(decoded.values_HWC), "CMYK").convert("RGB"))
    return Converted(as_unit(rgb), "CMYK converted without a colour profile, the colours are approximate")


def _grey(values_HWC: np.ndarray, profile: bytes) -> Converted:
    """By the tone curve, in floating point: 16 bits stay 16 bits, and the three channels stay equal."""
    ramp = np.arange(256) / 255
    if np.abs(srgb_encode(_grey_light(profile, ramp)) - ramp).max() * 255 <= _SAME:
        return Converted(as_unit(values_HWC))
    grey = in_blocks(as_unit(values_HWC), lambda block: srgb_encode(_grey_light(profile, block)))
    return Converted(grey, f"greys converted from {_name(profile)} to sRGB")


def _rgb(decoded: Decoded, profile: bytes) -> Converted:
    values_HWC = decoded.values_HWC
    if _means_srgb(profile):
        return Converted(as_unit(values_HWC))
    if decoded.bits > 8:
        note = f"more than 8 bits in {_name(profile)}: values kept as they are, the profile goes with the result"
        return Converted(as_unit(values_HWC), note, profile)
    grey = values_HWC.shape[-1] == 1
    stored = _eight_bits(np.repeat(values_HWC, 3, axis=-1) if grey else values_HWC)
    rgb = np.asarray(ImageCms.applyTransform(_picture(stored, "RGB"), _transform(profile, "RGB")))
    return Converted(as_unit(rgb[..., 1:2] if grey else rgb), f"colours converted from {_name(profile)} to sRGB")


def _cmyk(values_HWC: np.ndarray, profile: bytes) -> Converted:
    rgb = ImageCms.applyTransform(_picture(_eight_bits(values_HWC), "CMYK"), _transform(profile, "CMYK"))
    note = f"CMYK converted from {_name(profile)} to sRGB"
    return Converted(as_unit(np.asarray(rgb)), note + (", at 8 bits" if values_HWC.dtype != np.uint8 else ""))


@lru_cache(maxsize=4)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(
        source,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


@lru_cache(maxsize=16)
def _means_srgb(profile: bytes) -> bool:
    """By what it does to a table of colours: there are dozens of sRGB profiles, and names prove nothing."""
    steps = np.array([0, 8, 24, 48, 80, 112, 144, 176, 208, 232, 255], dtype=np.uint8)
    table = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(11, -1, 3)
    done = np.asarray(ImageCms.applyTransform(_picture(table, "RGB"), _transform(profile, "RGB")))
    return int(np.abs(done.astype(int) - table).max()) <= _SAME


def _name(profile: bytes) -> str:
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() or "its profile"
    except (ImageCms.PyCMSError, OSError):
        return "its profile"


def _eight_bits(values_HWC: np.ndarray) -> np.ndarray:
    return values_HWC if values_HWC.dtype == np.uint8 else (as_unit(values_HWC) * 255).round().astype(np.uint8)


def _picture(values_HWC: np.ndarray, mode: str) -> Image.Image:
    height, width, _ = values_HWC.shape
    return Image.frombuffer(mode, (width, height), np.ascontiguousarray(values_HWC), "raw", mode, 0, 1)


def _colour_space(profile: bytes) -> str:
    """What the profile's pixels are: "RGB", "GRAY", "CMYK", "Lab" ... Raises ProfileDamage."""
    if len(profile) < 132 or profile[36:40] != b"acsp":
        raise ProfileDamage("no ICC header")
    return profile[16:20].decode("latin-1").strip()


def _grey_light(profile: bytes, values: np.ndarray) -> np.ndarray:
    """The light (Y, 0..1) a grey profile gives to values 0..1, by its tone curve. Raises ProfileDamage."""
    try:
        curve = _evaluated(_tag(profile, b"kTRC"), values)
    except (struct.error, ValueError, IndexError) as error:
        raise ProfileDamage(f"tone curve: {error}") from error
    light = lightness_to_light(curve) if profile[20:24] == b"Lab " else curve
    if not np.isfinite(light).all():
        raise ProfileDamage("tone curve without numbers")
    return np.clip(light, 0.0, 1.0)


def _tag(profile: bytes, name: bytes) -> bytes:
    count = struct.unpack_from(">I", profile, 128)[0]
    for index in range(min(count, 200)):
        signature, offset, length = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        if signature == name and offset + length <= len(profile):
            return profile[offset : offset + length]
    raise ValueError(f"no {name.decode()} in it")


def _evaluated(curve: bytes, values: np.ndarray) -> np.ndarray:
    """ICC.1 10.6 (curveType) and 10.18 (parametricCurveType)."""
    if curve[:4] == b"curv":
        count = struct.unpack_from(">I", curve, 8)[0]
        if count == 0:
            return values
        if count == 1:
            return values ** (struct.unpack_from(">H", curve, 12)[0] / 256)
        table = np.frombuffer(curve, dtype=">u2", count=count, offset=12) / 65535
        return np.interp(values, np.linspace(0, 1, count), table)
    if curve[:4] != b"para":
        raise ValueError(f"of type {curve[:4]!r}")
    wanted = (1, 3, 4, 5, 7)[struct.unpack_from(">H", curve, 8)[0]]
    g, *others = (value / 65536 for value in struct.unpack_from(f">{wanted}i", curve, 12))
    if not others:
        return values**g
    a, b, *others = others
    c, d, e, f = 0.0, -b / a if a else 0.0, 0.0, 0.0
    if len(others) == 1:  # (ax + b)^g + c above -b/a, c below
        e = f = others[0]
    elif others:
        c, d, e, f = (*others, 0.0, 0.0)[:4]
    return np.where(values >= d, np.maximum(a * values + b, 0.0) ** g + e, c * values + f)
