"""The few fields of an ICC profile that are read here; the rest is left to LittleCMS."""

import struct

import numpy as np

from .transfer import lightness_to_light


class ProfileDamage(ValueError):
    """The profile cannot be used; the message says why."""


def colour_space(profile: bytes) -> str:
    """What the profile's pixels are: "RGB", "GRAY", "CMYK", "Lab" ... Raises ProfileDamage."""
    if len(profile) < 132 or profile[36:40] != b"acsp":
        raise ProfileDamage("no ICC header")
    return profile[16:20].decode("latin-1").strip()


def grey_light(profile: bytes, values: np.ndarray) -> np.ndarray:
    """The light (Y, 0..1) a grey profile gives to values 0..1, by its tone curve. Raises ProfileDamage."""
    curve = _evaluate(_tag(profile, b"kTRC"), values)
    light = lightness_to_light(curve) if profile[20:24] == b"Lab " else curve
    if not np.isfinite(light).all():
        raise ProfileDamage("tone curve without numbers")
    return np.clip(light, 0.0, 1.0)


def _tag(profile: bytes, name: bytes) -> bytes:
    try:
        count = struct.unpack_from(">I", profile, 128)[0]
        for index in range(min(count, 200)):
            signature, offset, length = struct.unpack_from(">4sII", profile, 132 + 12 * index)
            if signature == name and offset + length <= len(profile):
                return profile[offset : offset + length]
    except struct.error as error:
        raise ProfileDamage(f"tag table: {error}") from error
    raise ProfileDamage(f"no {name.decode()} in it")


def _evaluate(curve: bytes, values: np.ndarray) -> np.ndarray:
    """ICC.1 10.6 (curveType) and 10.18 (parametricCurveType)."""
    try:
        if curve[:4] == b"curv":
            count = struct.unpack_from(">I", curve, 8)[0]
            if count == 0:
                return values
            if count == 1:
                return values ** (struct.unpack_from(">H", curve, 12)[0] / 256)
            table = np.frombuffer(curve, dtype=">u2", count=count, offset=12) / 65535
            return np.interp(values, np.linspace(0, 1, count), table)
        if curve[:4] == b"para":
            kind = struct.unpack_from(">H", curve, 8)[0]
            wanted = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}[kind]
            return _parametric([v / 65536 for v in struct.unpack_from(f">{wanted}i", curve, 12)], values)
    except (struct.error, ValueError, KeyError) as error:
        raise ProfileDamage(f"tone curve: {error}") from error
    raise ProfileDamage(f"tone curve of type {curve[:4]!r}")


def _parametric(numbers: list[float], values: np.ndarray) -> np.ndarray:
    g = numbers[0]
    a, b = (numbers[1], numbers[2]) if len(numbers) > 1 else (1.0, 0.0)
    c, d, e, f = 0.0, -b / a if a else 0.0, 0.0, 0.0
    if len(numbers) == 4:  # (ax + b)^g + c above -b/a, c below
        e = f = numbers[3]
    elif len(numbers) == 5:
        c, d = numbers[3:]
    elif len(numbers) == 7:
        c, d, e, f = numbers[3:]
    if len(numbers) == 1:
        d = 0.0
    return np.where(values >= d, np.maximum(a * values + b, 0.0) ** g + e, c * values + f)
