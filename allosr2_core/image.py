"""Pictures in and out: files, alpha, sizes, resizing, padding.

Pictures are float32 torch tensors in 0..1 with the channels last (H, W, C or B, H, W, C), which is the convention of
ComfyUI's IMAGE; networks work on BCHW and convert at their edge. Values are sRGB as stored: no gamma and no ICC profile
is applied.

What Pillow (13.0 checked) limits: 16-bit greyscale keeps all its bits, 16-bit RGB, RGBA and grey+alpha PNGs are handed
out by Pillow as the top 8 bits of each channel. Such a file loads, and `LoadedImage.note` says so.
"""

import os
import struct
import uuid
import warnings
import zlib
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from .errors import AlloSR2Error

MAX_EDGE = 65535  # px, the largest edge JPEG can store
MAX_PIXELS = 16384 * 16384  # px; 3.2 GB as float32 RGB
WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
READABLE_SUFFIXES = (*WRITABLE_SUFFIXES, ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")

_EXIF_ORIENTATION = 0x0112
# What Pillow raises on data it cannot decode; SyntaxError is its name for a broken PNG or TIFF structure.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4, "exact": True},  # exact: keep the colour under transparent pixels
}
_FORMAT_OF_SUFFIX = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


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
                _check_size(picture.height, picture.width, what=f"{path}: the picture")
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


def save_image(path: str | Path, rgb_HWC: torch.Tensor, alpha_HW: torch.Tensor | None = None) -> None:
    """Write 8-bit PNG, JPEG (quality 95, 4:4:4) or WebP (quality 95), chosen by the suffix.

    rgb_HWC: (H, W, 3), alpha_HW: (H, W), both 0..1; values are rounded and clamped. Atomic: the picture is written
    beside `path` and renamed, so a failure leaves no half file and keeps an older one. Raises AlloSR2Error for another
    suffix, transparency in a JPEG, a wrong shape, non-finite values, or when the file cannot be written.
    """
    path = Path(path)
    file_format = _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if file_format is None:
        raise AlloSR2Error(
            f"{path}: expected one of {', '.join(WRITABLE_SUFFIXES)}, got {path.suffix or 'no suffix'!r}"
        )
    if rgb_HWC.ndim != 3 or rgb_HWC.shape[-1] != 3 or rgb_HWC.numel() == 0:
        raise AlloSR2Error(f"{path}: expected pixels (H, W, 3), got {tuple(rgb_HWC.shape)}")
    channels = [_to_bytes(rgb_HWC, path)]
    if alpha_HW is not None:
        if alpha_HW.shape != rgb_HWC.shape[:2]:
            expected, found = tuple(rgb_HWC.shape[:2]), tuple(alpha_HW.shape)
            raise AlloSR2Error(f"{path}: expected alpha of shape {expected}, got {found}")
        alpha = _to_bytes(alpha_HW[..., None], path)
        if file_format != "JPEG":
            channels.append(alpha)
        elif alpha.min() < 255:
            raise AlloSR2Error(f"{path}: JPEG cannot store transparency; expected .png or .webp for this picture")
    picture = Image.fromarray(np.concatenate(channels, axis=-1))
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(partial, "xb") as file:
            picture.save(file, format=file_format, **_SAVE_OPTIONS[file_format])
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, ValueError, struct.error) as error:
        raise AlloSR2Error(f"{path}: could not be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def split_alpha(image_BHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(B, H, W, 1 | 3 | 4) -> rgb (B, H, W, 3), alpha (B, H, W) or None. One channel is grey and is repeated."""
    if image_BHWC.ndim != 4 or image_BHWC.shape[-1] not in (1, 3, 4) or image_BHWC.numel() == 0:
        raise AlloSR2Error(f"expected images (B, H, W, 1, 3 or 4), got {tuple(image_BHWC.shape)}")
    if image_BHWC.shape[-1] == 1:
        return image_BHWC.expand(-1, -1, -1, 3), None
    if image_BHWC.shape[-1] == 3:
        return image_BHWC, None
    return image_BHWC[..., :3], image_BHWC[..., 3]


def target_size(height: int, width: int, scale: float | None = None, long_edge: int | None = None) -> tuple[int, int]:
    """Size of the result in px: exactly round(H * scale) x round(W * scale), halves up; or the longer edge given.

    `scale` is taken as written in decimal (45 * 1.7 is 76.5 and gives 77). At least 1 px. Raises AlloSR2Error unless
    exactly one of scale, long_edge is given and positive, or when the result is larger than MAX_EDGE or MAX_PIXELS.
    """
    if height < 1 or width < 1:
        raise AlloSR2Error(f"expected a picture of at least 1x1 px, got {width}x{height}")
    if (scale is None) == (long_edge is None):
        raise AlloSR2Error(f"expected either a scale or a long edge, got scale={scale}, long_edge={long_edge}")
    if scale is not None:
        factor = Decimal(repr(float(scale)))
        if not factor.is_finite() or factor <= 0:
            raise AlloSR2Error(f"expected a scale above 0, got {scale}")
        if factor > MAX_EDGE:
            raise AlloSR2Error(f"expected a scale of at most {MAX_EDGE}, got {scale}")
        size = [max(1, int((edge * factor).quantize(Decimal(1), rounding=ROUND_HALF_UP))) for edge in (height, width)]
    else:
        edge = int(long_edge)  # type: ignore[arg-type]  # not None: checked above
        if edge < 1 or edge != long_edge:
            raise AlloSR2Error(f"expected a long edge in whole px of at least 1, got {long_edge}")
        longest = max(height, width)
        size = [max(1, (2 * side * edge + longest) // (2 * longest)) for side in (height, width)]
    _check_size(size[0], size[1], what="the result")
    return size[0], size[1]


def resize_bicubic(image_BHWC: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bicubic to height x width px, clamped to 0..1, float32.

    torch's bicubic with align_corners=False; antialiased when either edge shrinks (torch then uses a = -0.5 instead of
    a = -0.75). At the picture's own size the pixels come back as they are.
    """
    if height < 1 or width < 1:
        raise AlloSR2Error(f"expected a size of at least 1x1 px, got {width}x{height}")
    _, old_height, old_width, _ = image_BHWC.shape
    image_BHWC = image_BHWC.float()
    if (height, width) != (old_height, old_width):
        shrinks = height < old_height or width < old_width
        image_BCHW = functional.interpolate(
            image_BHWC.movedim(-1, 1), size=(height, width), mode="bicubic", align_corners=False, antialias=shrinks
        )
        image_BHWC = image_BCHW.movedim(1, -1)
    return image_BHWC.clamp(0.0, 1.0).contiguous()


def pad_to_multiple(image_BHWC: torch.Tensor, multiple: int, minimum: int = 0) -> torch.Tensor:
    """Reflect at the right and bottom until both edges are multiples of `multiple` and at least `minimum` px.

    Works from 1x1 px: the mirror is repeated as often as needed, a single row or column is replicated. `crop` undoes
    it.
    """
    if multiple < 1:
        raise AlloSR2Error(f"expected a multiple of at least 1 px, got {multiple}")
    for dim in (1, 2):
        old = image_BHWC.shape[dim]
        new = padded_length(old, multiple, minimum)
        if new != old:
            image_BHWC = image_BHWC.index_select(dim, reflected(old, new).to(image_BHWC.device))
    return image_BHWC


def padded_length(length: int, multiple: int, minimum: int = 0) -> int:
    """What `pad_to_multiple` makes of an edge, px."""
    return -(-max(length, minimum) // multiple) * multiple


def crop(image_BHWC: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The top left height x width px. Raises AlloSR2Error when the picture is smaller."""
    _, old_height, old_width, _ = image_BHWC.shape
    if not (1 <= height <= old_height and 1 <= width <= old_width):
        raise AlloSR2Error(f"expected a crop of 1x1 to {old_width}x{old_height} px, got {width}x{height}")
    return image_BHWC[:, :height, :width]


def reflected(old: int, new: int) -> torch.Tensor:
    """Source index of each of `new` cells when `old` cells are mirrored without repeating the edge cell."""
    if old == 1:
        return torch.zeros(new, dtype=torch.long)
    period = 2 * (old - 1)
    index = torch.arange(new) % period
    return torch.where(index < old, index, period - index)


def _check_size(height: int, width: int, what: str) -> None:
    if max(height, width) > MAX_EDGE or height * width > MAX_PIXELS:
        raise AlloSR2Error(
            f"{what}: expected at most {MAX_EDGE} px an edge and {MAX_PIXELS // 1_000_000} megapixels, "
            f"got {width}x{height}"
        )


def _to_bytes(values_HWC: torch.Tensor, path: Path) -> np.ndarray:
    values_HWC = values_HWC.detach().float().cpu()
    if not bool(torch.isfinite(values_HWC).all()):
        raise AlloSR2Error(f"{path}: expected finite pixels, got NaN or infinity")
    return (values_HWC * 255.0).round().clamp(0, 255).to(torch.uint8).numpy()


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
