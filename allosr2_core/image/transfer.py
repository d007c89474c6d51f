"""Colour spaces that are a formula: curves, primaries, CIE Lab -> sRGB, in floating point and so at any depth."""

from collections.abc import Callable

import numpy as np

from .picture_file import Colours

SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x, y of white, red, green, blue
P3_PRIMARIES = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
BT2020_PRIMARIES = (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
SRGB_GAMMA = 1 / 2.2

_D50 = np.array((0.9642, 1.0, 0.8249))
_BRADFORD = np.array(((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)))
_ROWS_AT_ONCE = 1 << 20  # pixels; the float64 work of a large picture would need several times its memory


def srgb_encode(light: np.ndarray) -> np.ndarray:
    """Linear light -> sRGB values, both 0..1."""
    light = np.clip(light, 0.0, 1.0)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_decode(values: np.ndarray) -> np.ndarray:
    """sRGB values -> linear light, both 0..1."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def xyz_matrix(primaries: tuple[float, ...]) -> np.ndarray:
    """(3, 3): linear RGB -> XYZ, white has Y = 1. Raises ValueError for primaries that span no plane."""
    white, *corners = (np.array((x / y, 1.0, (1 - x - y) / y)) for x, y in zip(*[iter(primaries)] * 2, strict=True))
    columns = np.stack(corners, axis=1)
    if not np.isfinite(columns).all() or abs(np.linalg.det(columns)) < 1e-6:
        raise ValueError(f"primaries {primaries}")
    return columns * np.linalg.solve(columns, white)


def adaptation(source_white: np.ndarray, target_white: np.ndarray) -> np.ndarray:
    """(3, 3), Bradford: XYZ under one white -> XYZ under another."""
    scale = (_BRADFORD @ target_white) / (_BRADFORD @ source_white)
    return np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD


def is_srgb(colours: Colours) -> bool:
    """Whether the description means sRGB, within what files round."""
    near = colours.gamma is None or abs(colours.gamma / SRGB_GAMMA - 1) <= 0.05
    return near and (
        colours.primaries is None
        or max(abs(a - b) for a, b in zip(colours.primaries, SRGB_PRIMARIES, strict=True)) <= 0.01
    )


def described_to_srgb(values_HWC: np.ndarray, colours: Colours) -> np.ndarray:
    """float32 0..1 (1 or 3 channels) with a gamma and primaries -> sRGB, float32. Raises ValueError if impossible."""
    gamma = colours.gamma
    if gamma is not None and not 0.05 <= gamma <= 20:
        raise ValueError(f"gamma {gamma:g}")
    matrix = None
    if colours.primaries is not None and values_HWC.shape[-1] == 3:
        theirs, ours = xyz_matrix(colours.primaries), xyz_matrix(SRGB_PRIMARIES)
        matrix = np.linalg.inv(ours) @ adaptation(theirs.sum(axis=1), ours.sum(axis=1)) @ theirs
    like_srgb = gamma is None or abs(gamma / SRGB_GAMMA - 1) <= 0.05

    def convert(block: np.ndarray) -> np.ndarray:
        light = srgb_decode(block) if like_srgb or gamma is None else block ** (1 / gamma)
        return srgb_encode(light if matrix is None else light @ matrix.T)

    return in_blocks(values_HWC, convert)


def lab_to_srgb(lab_HWC: np.ndarray) -> np.ndarray:
    """CIE Lab under D50 (L 0..100) -> sRGB float32 0..1; colours outside sRGB are clipped."""
    ours = xyz_matrix(SRGB_PRIMARIES)
    matrix = np.linalg.inv(ours) @ adaptation(_D50, ours.sum(axis=1))

    def convert(block: np.ndarray) -> np.ndarray:
        y = (block[..., 0] + 16) / 116
        f = np.stack((y + block[..., 1] / 500, y, y - block[..., 2] / 200), axis=-1)
        xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _D50
        return srgb_encode(xyz @ matrix.T)

    return in_blocks(lab_HWC, convert)


def lightness_to_light(lightness: np.ndarray) -> np.ndarray:
    """CIE L* 0..1 -> Y 0..1."""
    f = (lightness * 100 + 16) / 116
    return np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))


def in_blocks(values_HWC: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`convert`, float64 to float64 and pixel by pixel, over blocks of rows; the result is float32."""
    height, width, _ = values_HWC.shape
    rows = max(1, _ROWS_AT_ONCE // width)
    result = np.empty(values_HWC.shape, dtype=np.float32)
    for top in range(0, height, rows):
        result[top : top + rows] = convert(values_HWC[top : top + rows].astype(np.float64))
    return result
