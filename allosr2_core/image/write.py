"""Pictures into files."""

import os
import struct
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import AlloSR2Error

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4, "exact": True},  # exact: keep the colour under transparent pixels
}
_FORMAT_OF_SUFFIX = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


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


def _to_bytes(values_HWC: torch.Tensor, path: Path) -> np.ndarray:
    values_HWC = values_HWC.detach().float().cpu()
    if not bool(torch.isfinite(values_HWC).all()):
        raise AlloSR2Error(f"{path}: expected finite pixels, got NaN or infinity")
    return (values_HWC * 255.0).round().clamp(0, 255).to(torch.uint8).numpy()
