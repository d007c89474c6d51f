"""The pictures that results are made of: files of this repository, or crops of them in one of several forms."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]


def write_source(picture: Mapping[str, Any], target: Path) -> Path:
    """Write a picture, target with its suffix; returns its path.

    Args:
        picture: "file" in the repository; without "box" (left, top, width, height) it is copied as it is. "form" of a
            crop: "rgb"; "grey"; "grey16", sixteen bits; "transparent", a disc that fades out, over wild colours.
        target: the path without a suffix.
    """
    source = REPOSITORY / picture["file"]
    if "box" not in picture:
        return Path(shutil.copyfile(source, target.with_suffix(source.suffix)))
    left, top, width, height = picture["box"]
    with Image.open(source) as whole:
        rgb_HWC = np.asarray(whole.convert("RGB").crop((left, top, left + width, top + height)))
    path = target.with_suffix(".png")
    Image.fromarray(_formed(rgb_HWC, picture["form"])).save(path)
    return path


def _formed(rgb_HWC: np.ndarray, form: str) -> np.ndarray:
    if form == "rgb":
        return rgb_HWC
    if form == "transparent":
        alpha_HW = np.clip(4 * (_radius(*rgb_HWC.shape[:2]) * -100 + 90), 0, 255).astype(np.uint8)
        wild = np.where((alpha_HW > 0)[..., None], rgb_HWC, np.array([255, 0, 255], dtype=np.uint8))
        return np.dstack([wild, alpha_HW])
    weighted_HW = rgb_HWC.astype(np.uint32) @ np.array([77, 151, 28], dtype=np.uint32)  # 0 to 256 * 255
    if form == "grey":
        return (weighted_HW // 256).astype(np.uint8)
    if form == "grey16":
        return weighted_HW.astype(np.uint16)
    raise ValueError(f"expected the form rgb, grey, grey16 or transparent; got {form!r}")


def write_mask(source: Path, target: Path) -> Path:
    """Write a mask of a picture's size: black on the left, white on the right, a ramp between them."""
    with Image.open(source) as picture:
        width, height = picture.size
    ramp_W = np.clip((np.arange(width) - width // 3) * 16, 0, 255).astype(np.uint8)
    Image.fromarray(np.tile(ramp_W, (height, 1))).save(target)
    return target


def _radius(height: int, width: int) -> np.ndarray:
    """Squared distance from the middle, 1 at the nearest border, (H, W)."""
    rows, columns = ((2 * np.arange(side) + 1 - side) for side in (height, width))
    return (rows[:, None] ** 2 + columns[None] ** 2) / min(height, width) ** 2
