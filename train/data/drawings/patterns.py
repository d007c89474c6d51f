"""Regular patterns on planes: bricks, tiles, facades and fences in perspective."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from .backgrounds import photograph
from .kit import OVERSAMPLING, Color, Kit, mixed, over, reduced
from .planes import seen_aslant

PLANE = 1.5
"""Side of a plane, of the canvas: room for the view to be aslant."""


def _jittered(kit: Kit, color: Color, amount: float) -> Color:
    other = (255, 255, 255) if kit.chance(0.5) else (0, 0, 0)
    return mixed(color, other, kit.uniform(0, amount))


def _plane(kit: Kit, color: Color) -> Image.Image:
    side = round(kit.side * OVERSAMPLING * PLANE)
    return Image.new("RGB", (side, side), color)


def _viewed(kit: Kit, plane: Image.Image) -> Image.Image:
    return reduced(seen_aslant(kit, plane, kit.side * OVERSAMPLING))


def bricks(kit: Kit) -> Image.Image:
    """Courses of bricks with mortar between them."""
    stone = kit.pick(((165, 80, 60), (190, 110, 80), (120, 60, 50), (200, 190, 175), (110, 110, 115), (215, 180, 130)))
    mortar = (
        mixed(stone, (225, 220, 210), kit.uniform(0.4, 0.9)) if kit.chance(0.7) else mixed(stone, (40, 40, 40), 0.6)
    )
    plane = _plane(kit, mortar)
    draw = ImageDraw.Draw(plane)
    height = OVERSAMPLING * kit.log_uniform(14, 70)
    width, gap = height * kit.uniform(2.0, 3.5), max(height * kit.uniform(0.04, 0.14), OVERSAMPLING)
    radius = height * kit.uniform(0, 0.12)
    shift = kit.pick((0.5, 0.5, 1 / 3))
    for row in range(math.ceil(plane.height / height)):
        x = -width * ((row * shift) % 1)
        while x < plane.width:
            box = (x, row * height, x + width - gap, (row + 1) * height - gap)
            draw.rounded_rectangle(box, radius, _jittered(kit, stone, 0.25))
            x += width
    return _viewed(kit, plane)


def tiles(kit: Kit) -> Image.Image:
    """Square tiles of two colours or many, straight or as diamonds."""
    a, b = kit.color(0.7, (0.3, 1)), kit.color(0.7, (0.1, 0.8))
    plane = _plane(kit, mixed(a, (230, 230, 225), 0.6))
    draw = ImageDraw.Draw(plane)
    size = OVERSAMPLING * kit.log_uniform(12, 110)
    gap = max(size * kit.uniform(0.02, 0.08), OVERSAMPLING * 0.75) if kit.chance(0.8) else 0
    count, mode = math.ceil(plane.width / size), kit.pick(("checks", "mixed", "plain", "inlaid"))
    for row in range(count):
        for place in range(count):
            x, y = place * size, row * size
            first = (row + place) % 2 == 0 if mode in ("checks", "inlaid") else kit.chance(0.5) or mode == "plain"
            color = _jittered(kit, a if first else b, 0.08)
            draw.rectangle((x, y, x + size - gap - 1, y + size - gap - 1), color)
            if mode == "inlaid":
                m, r = size / 2, size * 0.3
                diamond = [(x + m, y + m - r), (x + m + r, y + m), (x + m, y + m + r), (x + m - r, y + m)]
                draw.polygon(diamond, b if first else a)
    return _viewed(kit, plane.rotate(45, Image.Resampling.BICUBIC, fillcolor=a) if kit.chance(0.2) else plane)


def facade(kit: Kit) -> Image.Image:
    """Rows of windows with frames and bars, each with its own reflection."""
    wall = kit.color(0.4, (0.35, 0.95))
    plane = _plane(kit, wall)
    draw = ImageDraw.Draw(plane)
    cell_w, cell_h = OVERSAMPLING * kit.log_uniform(40, 160), OVERSAMPLING * kit.log_uniform(50, 180)
    frame = _jittered(kit, (240, 240, 238), 0.1) if kit.chance(0.6) else _jittered(kit, (50, 45, 42), 0.2)
    glass = kit.pick(((60, 80, 100), (35, 40, 50), (130, 160, 185), (90, 100, 95)))
    inset, bar = kit.uniform(0.08, 0.25), max(OVERSAMPLING * kit.uniform(1, 4), 3)
    columns, rows = kit.integer(1, 3), kit.integer(1, 4)
    for row in range(math.ceil(plane.height / cell_h)):
        for place in range(math.ceil(plane.width / cell_w)):
            left, top = (place + inset) * cell_w, (row + inset) * cell_h
            right, bottom = (place + 1 - inset) * cell_w, (row + 1 - inset) * cell_h
            draw.rectangle((left, top, right, bottom), mixed(glass, (225, 235, 245), kit.uniform(0, 0.5)))
            split = top + (bottom - top) * kit.uniform(0.2, 0.8)
            shade = mixed(glass, (20, 20, 25), kit.uniform(0.1, 0.6))
            draw.polygon([(left, split), (right, split - (right - left) * 0.3), (right, bottom), (left, bottom)], shade)
            draw.rectangle((left, top, right, bottom), None, frame, round(2 * bar))
            for k in range(1, columns):
                x = left + (right - left) * k / columns
                draw.rectangle((x - bar / 2, top, x + bar / 2, bottom), frame)
            for k in range(1, rows):
                y = top + (bottom - top) * k / rows
                draw.rectangle((left, y - bar / 2, right, y + bar / 2), frame)
            sill = (left - 3 * bar, bottom, right + 3 * bar, bottom + 3 * bar)
            draw.rectangle(sill, mixed(wall, (255, 255, 255), 0.4))
        y = row * cell_h
        draw.line([(0, y), (plane.width, y)], mixed(wall, (0, 0, 0), 0.25), round(bar))
    return _viewed(kit, plane)


def fence(kit: Kit) -> Image.Image:
    """Pickets, bars or chain link in front of a photograph."""
    side = round(kit.side * OVERSAMPLING * PLANE)
    color = kit.pick(((245, 245, 240), (30, 32, 30), (110, 75, 45), (150, 155, 160), (40, 80, 50)))
    plane = Image.new("RGBA", (side, side), (*color, 0))
    draw = ImageDraw.Draw(plane)
    pitch = OVERSAMPLING * kit.log_uniform(12, 70)
    mode = kit.pick(("pickets", "bars", "links"))
    if mode == "links":
        wire = max(round(pitch * kit.uniform(0.06, 0.14)), 3)
        for k in range(-math.ceil(side / pitch), math.ceil(2 * side / pitch)):
            draw.line([(k * pitch, 0), (k * pitch + side, side)], color, wire)
            draw.line([(k * pitch, 0), (k * pitch - side, side)], _jittered(kit, color, 0.3), wire)
    else:
        width = pitch * (kit.uniform(0.5, 0.75) if mode == "pickets" else kit.uniform(0.1, 0.3))
        top = side * kit.uniform(0.2, 0.4)
        for y in (top + side * 0.08, top + side * kit.uniform(0.25, 0.4)):
            draw.rectangle((0, y, side, y + pitch * 0.5), mixed(color, (0, 0, 0), 0.15))
        for k in range(math.ceil(side / pitch)):
            x = k * pitch
            shade = _jittered(kit, color, 0.2)
            draw.polygon(
                [(x, side), (x, top), (x + width / 2, top - width / 2), (x + width, top), (x + width, side)], shade
            )
    view = seen_aslant(kit, plane.convert("RGBa"), kit.side * OVERSAMPLING).convert("RGBA")
    return over(reduced(view), photograph(kit, blurred=kit.chance(0.6)))
