"""Vector drawings: single ones large, and sheets of icons with their names."""

from __future__ import annotations

import io

import numpy as np
import resvg_py
from PIL import Image, ImageDraw

from .backgrounds import background, flat, gradient
from .kit import OVERSAMPLING, Color, Kit, luma, mean_color, over, reduced, sheet
from .words import word

TRIES = 20


def rasterised(svg: str, width: int, height: int) -> Image.Image | None:
    """The drawing in a box of width x height px, its proportions kept, RGBA; None where it draws nothing there."""
    try:
        picture = _decoded(svg, width)
        if picture.height > height:
            picture = _decoded(svg, max(round(width * height / picture.height), 1))
    except (ValueError, OSError):
        return None
    alpha = np.asarray(picture)[..., 3]
    return picture if picture.height <= height + 1 and (alpha > 128).mean() > 0.02 else None


def _decoded(svg: str, width: int) -> Image.Image:
    png = resvg_py.svg_to_bytes(svg_string=svg, width=width, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png)), formats=("PNG",)).convert("RGBA")


def icon(kit: Kit, size: int, under: Color) -> Image.Image:
    """A drawing of the split in a square of `size` px; one of a single colour is painted to stand off from `under`."""
    for _ in range(TRIES):
        drawn = rasterised(kit.pick(kit.pick(kit.assets.drawings)), size, size)
        if drawn is None:
            continue
        rgba = np.array(drawn)
        solid = rgba[rgba[..., 3] > 128][:, :3].astype(float)
        if solid.std(0).max() < 8:
            rgba[..., :3] = kit.ink_on(under)
            drawn = Image.fromarray(rgba)
        return drawn
    dot = Image.new("RGBA", (OVERSAMPLING * size, OVERSAMPLING * size))
    ImageDraw.Draw(dot).ellipse((0, 0, OVERSAMPLING * size - 1, OVERSAMPLING * size - 1), kit.ink_on(under))
    return reduced(dot)


def drawing(kit: Kit) -> Image.Image:
    """One to three drawings, large, some turned or cut by the border."""
    picture = background(kit, 0.4)
    for _ in range(kit.pick((1, 1, 2, 3))):
        drawn = icon(kit, round(kit.side * kit.uniform(0.5, 1.2)), mean_color(picture))
        if kit.chance(0.3):
            turned = drawn.convert("RGBa").rotate(kit.uniform(-40, 40), Image.Resampling.BICUBIC, expand=True)
            drawn = turned.convert("RGBA")
        layer = Image.new("RGBA", picture.size)
        left, top = (round(kit.uniform(-0.1, 1.1) * (kit.side - extent)) for extent in drawn.size)
        layer.paste(drawn, (left, top))
        picture = over(layer, picture)
    return picture


def icons(kit: Kit) -> Image.Image:
    """A grid of icons on one colour or a gradient, names below them at times."""
    paper = kit.color(0.3, (0.85, 1.0)) if kit.chance(0.6) else kit.color(0.5, (0.05, 0.3))
    picture = gradient(kit, paper, paper) if kit.chance(0.3) else flat(kit, paper)
    across = kit.integer(2, 8)
    cell = kit.side // across
    size = round(cell * kit.uniform(0.5, 0.8))
    named, layer = across < 7 and kit.chance(0.5), sheet(kit.side)
    face, script = kit.typeface()
    font = face.at(max(OVERSAMPLING * cell // 9, OVERSAMPLING * 9))
    ink = (240, 240, 240) if luma(paper) < 128 else (30, 30, 30)
    result = picture.convert("RGBA")
    for row in range(across):
        for place in range(across):
            drawn = icon(kit, size, paper)
            left, top = place * cell + (cell - drawn.width) // 2, row * cell + (cell - drawn.height) // 3
            result.alpha_composite(drawn, (left, top))
            if named:
                middle = OVERSAMPLING * (place * cell + cell // 2), OVERSAMPLING * (row * cell + round(cell * 0.9))
                ImageDraw.Draw(layer).text(middle, word(kit, script), font=font, fill=ink, anchor="mm")
    return over(reduced(layer), result)
