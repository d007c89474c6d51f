"""The pictures `python -m train evaluate` measures on: the same crops and the same degradations on every machine.

Crop: the centre of the photo, at most 512 x 512 px; a shorter side gives the largest multiple of 32 it holds. Photos
that give less than 64 px on a side are left out and named in the report. Degradation: train/data/degradation.py, seeded
by the sha256 of "<file name>/<strength>", so neither the order, the subset nor Python's hash seed matters.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from allosr2_core.image.read import load_image

from ..data.degradation import SCALE, Strength, degrade

log = logging.getLogger(__name__)
T = TypeVar("T")

CROP = 512  # px
CROP_MULTIPLE = 32  # px
CROP_MINIMUM = 64  # px


@dataclass(frozen=True)
class EvalPhoto:
    """One reference crop."""

    name: str  # file name
    hr: Tensor  # 1,3,H,W in [0, 1]
    digest: str  # sha256 of the crop's 8-bit pixels


def centre_crop(picture_1CHW: Tensor) -> Tensor | None:
    """The evaluation crop of a photo 1,3,H,W; None when it would be smaller than CROP_MINIMUM."""
    sides = [min(CROP, side // CROP_MULTIPLE * CROP_MULTIPLE) for side in picture_1CHW.shape[2:]]
    if min(sides) < CROP_MINIMUM:
        return None
    top, left = ((full - side) // 2 for full, side in zip(picture_1CHW.shape[2:], sides, strict=True))
    return picture_1CHW[:, :, top : top + sides[0], left : left + sides[1]].contiguous()


def load_photo(path: Path, reduce: int = 1) -> EvalPhoto | None:
    """The evaluation crop of a file; None (and a warning) when the photo is too small.

    `reduce`: the photo is first made so many times smaller, by averages of reduce x reduce pixels; one that would be
    smaller than the crop then is left as it is.
    """
    picture = load_image(path).rgb_HWC.permute(2, 0, 1)[None].float()
    if min(picture.shape[2:]) >= reduce * CROP:
        picture = F.avg_pool2d(picture, reduce)
    crop = centre_crop(picture)
    if crop is None:
        log.warning("%s left out: %d x %d px", path.name, picture.shape[3], picture.shape[2])
        return None
    return EvalPhoto(name=path.name, hr=crop, digest=tensor_digest(crop))


def tensor_digest(x_BCHW: Tensor) -> str:
    """sha256 of a picture's shape and 8-bit pixels."""
    pixels = x_BCHW.clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8).contiguous()
    return hashlib.sha256(str(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()


def degradation_seed(name: str, strength: str) -> int:
    """Seed of a photo's degradation, 0 .. 2^63 - 1."""
    return int.from_bytes(hashlib.sha256(f"{name}/{strength}".encode()).digest()[:8], "big") >> 1


def low_resolution(photo: EvalPhoto, strength: Strength, factor: int = SCALE) -> Tensor:
    """The degraded input of one photo at one strength: 1,3,H/factor,W/factor in [0, 1], rounded to 8 bit."""
    generator = torch.Generator().manual_seed(degradation_seed(photo.name, strength))
    return degrade(photo.hr, strength, generator, scale=factor).clamp(0.0, 1.0).mul(255.0).round().div(255.0)


def evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` items, evenly spread over the list, so that a short run still sees every kind of photo."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


def load_photos(paths: Sequence[Path], reduce: int = 1) -> Iterator[EvalPhoto]:
    """Reference crops one at a time; too small photos are skipped. `reduce`: see `load_photo`."""
    for path in paths:
        photo = load_photo(path, reduce)
        if photo is not None:
            yield photo
