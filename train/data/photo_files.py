"""Photographs on disk as arrays: decoded once, kept in a cache; files that cannot be read are named and left out."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically, writing
from allosr2_core.image.opening import open_picture

from .degradation import SCALE
from .sources.photos import image_files, load_manifest

log = logging.getLogger(__name__)
LARGEST = 150_000_000
"""Pixels of a photograph; decoded, these are 450 MB."""
NOISY_PACKAGE = "enlightenment-data"
"""Photographs of this package carry sensor noise at full size and are halved when they are decoded."""
LISTED = 10
"""Names that a message lists."""


@functools.cache
def noisy_names() -> frozenset[str]:
    """File names of the photographs to halve."""
    return frozenset(photo.name for photo in load_manifest().photos if photo.package == NOISY_PACKAGE)


def decode(path: Path) -> Image.Image:
    """A photograph, upright, RGB. AlloSR2Error names a file that is none, is damaged or has too many pixels.

    The size is looked at before a pixel is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # below what is refused
        with open_picture(path, LARGEST) as image:
            return ImageOps.exif_transpose(image).convert("RGB")


def decode_cached(path: Path, cache: Path) -> np.ndarray:
    """The photograph as a memory-mapped uint8 array [H, W, 3]; decoded once, written atomically.

    The name in the cache follows from the file's place, size and time: another file never answers for it. A damaged
    file in the cache is made anew. AlloSR2Error: see `decode`.
    """
    status, place = path.stat(), path.resolve()
    key = hashlib.sha256(f"{place}/{status.st_size}/{status.st_mtime_ns}".encode()).hexdigest()[:12]
    target = cache / f"{path.stem}-{key}.npy"
    if target.exists():
        try:
            return _mapped(target)
        except (OSError, ValueError, EOFError) as error:
            log.warning("%s: damaged (%s); made anew from %s", target, error, path)
    rgb = decode(path)
    if path.name in noisy_names():
        rgb = rgb.resize((rgb.width // 2, rgb.height // 2), Image.Resampling.BOX)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # NumPy gives a bare path its own suffix
            np.save(file, np.asarray(rgb))

    with writing(target):
        write_atomically(target, write)
    return _mapped(target)


def _mapped(target: Path) -> np.ndarray:
    """An array of the cache. ValueError, EOFError or OSError where it is not whole."""
    array = np.load(target, mmap_mode="r")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"expected uint8 [H, W, 3]; got {array.dtype} {list(array.shape)}")
    return array


def decode_all(paths: Sequence[Path], cache: Path) -> dict[Path, np.ndarray]:
    """`decode_cached` of those that can be read, in order; the others are named in the log, counted and left out.

    AlloSR2Error where none is left.
    """
    found, lost = dict[Path, np.ndarray](), list[str]()
    for path in paths:
        try:
            found[path] = decode_cached(path, cache)
        except AlloSR2Error as error:
            log.warning("left out: %s", error)
            lost.append(path.name)
    if lost:
        log.warning("%d of %d photographs left out: %s", len(lost), len(paths), listed(lost))
    if paths and not found:
        raise AlloSR2Error(f"expected photographs that can be read in {paths[0].parent}; all {len(paths)} cannot")
    return found


def listed(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


@dataclass(frozen=True)
class Photo:
    """What crops are cut from."""

    hr: np.ndarray
    """uint8 [H, W, 3]."""
    lr: np.ndarray | None
    """Its low-resolution version, uint8 [H/scale, W/scale, 3], or None: made on the fly."""
    weight: float
    """How often it is drawn, relative to the others."""
    name: str = ""
    """Of its file."""


def load_photos(paths: Sequence[Path], cache: Path, weight: float = 1.0) -> list[Photo]:
    """The photographs of one folder, together drawn with `weight`; see `decode_all`."""
    decoded = decode_all(paths, cache)
    return _weighted([Photo(hr, None, weight, path.name) for path, hr in decoded.items()])


def load_pairs(hr_folder: Path, lr_folder: Path, cache: Path, weight: float, scale: int = SCALE) -> list[Photo]:
    """Paired folders: files of the same place and stem. A pair of which one cannot be read is left out (`decode_all`).

    AlloSR2Error names a file without a partner or a pair of other sizes.
    """
    hr_paths, lr_paths = ({p.relative_to(f).with_suffix(""): p for p in image_files(f)} for f in (hr_folder, lr_folder))
    alone = sorted(str(place) for place in hr_paths.keys() ^ lr_paths.keys())
    if alone:
        raise AlloSR2Error(
            f"expected files of the same names in {hr_folder} and {lr_folder}; without a partner: {alone}"
        )
    hr, lr = (decode_all(list(paths.values()), cache) for paths in (hr_paths, lr_paths))
    photos = []
    for place, path in hr_paths.items():
        if path not in hr or lr_paths[place] not in lr:
            continue
        photo = Photo(hr[path], lr[lr_paths[place]], weight, path.name)
        sizes = [f"{p.shape[1]}x{p.shape[0]}" for p in (hr[path], lr[lr_paths[place]])]
        if photo.hr.shape[:2] != tuple(scale * side for side in lr[lr_paths[place]].shape[:2]):
            raise AlloSR2Error(f"{path.name}: expected a picture {scale} times its input; got {' and '.join(sizes)}")
        photos.append(photo)
    return _weighted(photos)


def _weighted(photos: Sequence[Photo]) -> list[Photo]:
    """Photographs that share the weight they have, by size.

    A 12-megapixel photograph holds more to learn than a small one, but not thirty times more: the square root counts.
    """
    shares = [math.sqrt(photo.hr.shape[0] * photo.hr.shape[1]) for photo in photos]
    whole = sum(shares)
    return [
        dataclasses.replace(photo, weight=photo.weight * share / whole)
        for photo, share in zip(photos, shares, strict=True)
    ]
