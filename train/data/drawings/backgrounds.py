"""What lies behind drawings: flat colours, gradients, photographs, blurred or sharp."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..photo_files import decode
from .kit import Color, Kit


def background(kit: Kit, photo: float = 0.5) -> Image.Image:
    """RGB [side, side]: a photograph with probability `photo`, else flat or a gradient."""
    if kit.chance(photo) and kit.assets.photos:
        return photograph(kit, blurred=kit.chance(0.5))
    return gradient(kit) if kit.chance(0.5) else flat(kit, kit.color(0.6))


def flat(kit: Kit, color: Color) -> Image.Image:
    """One colour."""
    return Image.new("RGB", (kit.side, kit.side), color)


def gradient(kit: Kit, a: Color | None = None, b: Color | None = None) -> Image.Image:
    """From one colour to another, along a line or outwards from a point."""
    a, b = a or kit.color(0.8, (0.1, 1)), b or kit.color(0.8, (0.1, 1))
    y, x = np.mgrid[: kit.side, : kit.side] / kit.side
    if kit.chance(0.6):
        angle = kit.uniform(0, 2 * np.pi)
        ramp = x * np.cos(angle) + y * np.sin(angle)
    else:
        ramp = np.hypot(x - kit.uniform(0, 1), y - kit.uniform(0, 1))
    ramp = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    mix = np.array(a) + (np.array(b) - np.array(a)) * ramp[..., None]
    return Image.fromarray(np.round(mix).astype(np.uint8))


def photograph(kit: Kit, blurred: bool = False) -> Image.Image:
    """A square of a photograph, reduced so that it is sharp, or out of focus as behind a near object."""
    photo = _decoded(kit.pick(kit.assets.photos))
    largest = min(photo.size)
    cut = min(largest, round(kit.side * kit.uniform(1.0, 2.0)))
    left, top = kit.integer(0, photo.width - cut), kit.integer(0, photo.height - cut)
    square = (left, top, left + cut, top + cut)
    picture = photo.resize((kit.side, kit.side), Image.Resampling.LANCZOS, box=square)
    if blurred or cut < kit.side:
        picture = picture.filter(ImageFilter.GaussianBlur(kit.log_uniform(3, 20)))
    return picture


@functools.lru_cache(maxsize=4)
def _decoded(path: Path) -> Image.Image:
    return decode(path)
