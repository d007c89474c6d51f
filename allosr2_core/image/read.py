"""Pictures in and out: files, alpha, sizes, resizing, padding.

Pictures are float32 torch tensors in 0..1 with the channels last (H, W, C or B, H, W, C), which is the convention of
ComfyUI's IMAGE; networks work on BCHW and convert at their edge. Values are sRGB as stored: no gamma and no ICC profile
is applied.

What Pillow (13.0 checked) limits: 16-bit greyscale keeps all its bits, 16-bit RGB, RGBA and grey+alpha PNGs are handed
out by Pillow as the top 8 bits of each channel. Such a file loads, and `LoadedImage.note` says so.
"""

import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..errors import AlloSR2Error
from .geometry import check_size
from .write import WRITABLE_SUFFIXES

READABLE_SUFFIXES = (*WRITABLE_SUFFIXES, ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")

_EXIF_ORIENTATION = 0x0112
# What Pillow raises on data it cannot decode; SyntaxError is its name for a broken PNG or TIFF structure.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


@dataclass(frozen=True)
class LoadedImage:
    """A picture from a file, upright (EXIF orientation applied).

    rgb_HWC: float32 0..1, 3 channels. alpha_HW: float32 0..1, or None when the file has no transparency.
    note: what was lost in reading it, for the user to see; empty when nothing was.
    """

    rgb_HWC: torch.Tensor
    alpha_HW: torch.Tensor | None
    note: str = ""

    @property
    def image_BHWC(self) -> torch.Tensor:
        """(1, H, W, 3), or (1, H, W, 4) when the file has an alpha channel."""
        if self.alpha_HW is None:
            return self.rgb_HWC[None]
        return torch.cat((self.rgb_HWC, self.alpha_HW[..., None]), dim=-1)[None]


def load_image(path: str | Path) -> LoadedImage:
    """Read any still picture Pillow knows; of an animation the first frame.

    Grey becomes RGB, palettes and CMYK are converted, a transparent palette entry or colour key becomes alpha.
    Raises AlloSR2Error, naming the file, when it is missing, empty, truncated, not a picture or too large.
    """
    path = Path(path)
    if not path.is_file():
        raise AlloSR2Error(f"{path}: expected an image file, found {'a folder' if path.is_dir() else 'nothing'}")
    if path.stat().st_size == 0:
        raise AlloSR2Error(f"{path}: expected an image, the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Image.open(path) as picture:
                check_size(picture.height, picture.width, what=f"{path}: the picture")
                notes = [_precision_note(picture)]
                picture.load()
                orientation, exif_note = _orientation(picture)
                notes.append(exif_note)
                values_HWC, alpha_HW = _to_arrays(picture)
    except AlloSR2Error as error:
        raise error if str(path) in str(error) else AlloSR2Error(f"{path}: {error}") from error
    except (*_DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise AlloSR2Error(f"{path}: expected a complete image in a format Pillow reads, got: {error}") from error
    rgb_HWC = torch.from_numpy(np.ascontiguousarray(_upright(values_HWC, orientation)))
    if alpha_HW is not None:
        alpha_HW = torch.from_numpy(np.ascontiguousarray(_upright(alpha_HW, orientation)))
    # Damage Pillow worked around (metadata, not pixels) is only warned of: hand it to the user with the picture.
    notes += [str(warning.message).strip() for warning in caught if issubclass(warning.category, UserWarning)]
    return LoadedImage(
        rgb_HWC=rgb_HWC, alpha_HW=alpha_HW, note="; ".join(dict.fromkeys(note for note in notes if note))
    )


def _precision_note(picture: Image.Image) -> str:
    """Before load(), a decoder's raw mode tells how many bits the file has; Pillow keeps 8 of each colour channel."""
    raw_modes = [str(tile[3]) for tile in getattr(picture, "tile", []) if len(tile) > 3]
    deep = any(";16" in mode for mode in raw_modes) and not picture.mode.startswith(("I", "F"))
    return "16 bits a channel in the file, read as 8 (only greyscale keeps 16)" if deep else ""


def _orientation(picture: Image.Image) -> tuple[int, str]:
    """EXIF orientation 1..8 and a note; damaged EXIF data is no reason to refuse intact pixels."""
    try:
        value = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except _DECODE_ERRORS as error:
        return 1, f"EXIF data damaged ({error}), orientation not applied"
    return (value if value in range(1, 9) else 1), ""


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation (TIFF 6.0 tag 274) on (H, W) or (H, W, C)."""
    if orientation >= 5:  # rows and columns exchanged
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _to_arrays(picture: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Pillow image -> rgb (H, W, 3) and alpha (H, W) or None, float32 0..1, in the file's orientation."""
    if picture.mode.startswith("I") or picture.mode == "F":
        grey_HW = np.asarray(picture).astype(np.float32 if picture.mode == "F" else np.int64)
        top = 1.0 if picture.mode == "F" else 65535.0
        low, high = float(grey_HW.min()), float(grey_HW.max())
        if not (low >= 0.0 and high <= top):  # also refuses NaN
            raise AlloSR2Error(f"expected grey values in 0..{top:.0f}, got {low:g}..{high:g}")
        rgb_HWC = np.repeat((grey_HW / top).astype(np.float32)[..., None], 3, axis=-1)
        key = picture.info.get("transparency")
        return rgb_HWC, None if key is None else (grey_HW != key).astype(np.float32)
    rgba = picture.has_transparency_data
    values_HWC = np.asarray(picture.convert("RGBA" if rgba else "RGB")).astype(np.float32) / np.float32(255.0)
    return values_HWC[..., :3], values_HWC[..., 3] if rgba else None
