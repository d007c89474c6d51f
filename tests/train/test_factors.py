"""Quality at every factor, on parts of three validation photographs (tests/photos, credited in CREDITS.md).

What is promised: closer to the photograph than the bicubic enlargement in ST-LPIPS, and less than 1.5 dB below it in
PSNR, on degraded input as on clean. Decibels are lost to contrast: the checkpoint was trained towards sharpened
photographs. At a factor of 1 the bicubic enlargement of a clean picture is the picture itself; there the result may
only change little. Just above 1 it nearly is; there the result may be a little further in ST-LPIPS.
"""

import functools
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.image.geometry import resize_bicubic
from allosr2_core.image.read import load_image
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from train.data.degradation import degrade
from train.perceptual.networks import load_st_lpips

pytestmark = pytest.mark.weights
PHOTOS = sorted((Path(__file__).resolve().parents[1] / "photos").glob("*.jpg"))
ROOT = Path(os.environ.get("ALLOSR2_DATA", "data"))
FACTORS = (1.0, 1.37, 2.0, 3.0, 4.0, 6.0, 8.0)


@functools.cache
def upscaler() -> Pipeline:
    return Pipeline.from_checkpoint(load_checkpoint(embedded_path()))


def psnr(one: Tensor, two: Tensor) -> float:
    return float(-10.0 * torch.log10((one - two).square().mean()))


def pairs(factor: float, degraded: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(photograph, bicubic enlargement, result) of each photograph, [1, H, W, 3], for an input so many times smaller.

    Degraded: `degrade` at "mild", which also does the reducing where the factor is whole.
    """
    found = []
    for path in PHOTOS:
        photo = load_image(path).image_BHWC
        small = [round(side / factor) for side in photo.shape[1:3]]
        whole, generator = factor == int(factor), torch.Generator().manual_seed(5)
        if degraded:
            source = photo if whole else resize_bicubic(photo, *small)
            scale = int(factor) if whole else 1
            low = degrade(source.movedim(-1, 1), "mild", generator, scale=scale).movedim(1, -1)
        else:
            low = resize_bicubic(photo, *small)
        low = low.clamp(0, 1).mul(255).round().div(255)
        result = upscaler().upscale(low, UpscaleOptions(scale=None, long_edge=photo.shape[1]))
        assert result.shape == photo.shape
        found.append((photo, resize_bicubic(low, *photo.shape[1:3]), result))
    return found


@pytest.mark.parametrize("degraded", [True, False], ids=["degraded", "clean"])
@pytest.mark.parametrize("factor", FACTORS)
@torch.inference_mode()
def test_better_than_bicubic(factor: float, degraded: bool) -> None:
    distance = load_st_lpips("vgg", ROOT)
    gains, ours, theirs = [], [], []
    for photo, bicubic, result in pairs(factor, degraded):
        if torch.equal(bicubic, photo):
            assert psnr(result, photo) > 38.0
            continue
        gains.append(psnr(result, photo) - psnr(bicubic, photo))
        for values, picture in ((ours, result), (theirs, bicubic)):
            values.append(float(distance(picture.movedim(-1, 1), photo.movedim(-1, 1))))
    assert len(gains) == (3 if degraded or factor > 1 else 0)
    assert all(gain > -1.5 for gain in gains), gains
    allowed = 1.15 if not degraded and factor < 2 else 1.0
    assert sum(ours) < allowed * sum(theirs) or not gains, (ours, theirs)
