"""Charts with axes, ticks and labels: curves, bars, points, pies."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from .kit import OVERSAMPLING, Color, Kit, luma, mixed, reduced, sheet
from .words import phrase, word

PALETTES = (
    ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)),
    ((0, 63, 92), (88, 80, 141), (188, 80, 144), (255, 99, 97), (255, 166, 0)),
    ((38, 70, 83), (42, 157, 143), (233, 196, 106), (244, 162, 97), (231, 111, 81)),
    ((20, 20, 20), (90, 90, 90), (150, 150, 150), (60, 60, 60), (120, 120, 120)),
)


def _curve(kit: Kit) -> list[float]:
    """101 values in 0..1 of a smooth, a noisy or a stepped function."""
    amplitudes = [(kit.uniform(0, 1) / k, kit.uniform(0, 6.3)) for k in range(1, 6)]
    rough = kit.uniform(0, 0.25) if kit.chance(0.4) else 0
    raw = [
        sum(a * math.sin(k * 0.06 * x + phase) for k, (a, phase) in enumerate(amplitudes, 1))
        + rough * kit.uniform(-1, 1)
        for x in range(101)
    ]
    low, high = min(raw), max(raw)
    return [0.05 + 0.9 * (value - low) / (high - low) for value in raw]


def _chart(
    kit: Kit, draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], paper: Color, ink: Color
) -> None:
    """One chart in a box (left, top, right, bottom) of the canvas."""
    left, top, right, bottom = box
    colors = kit.pick(PALETTES)
    if luma(paper) < 128:
        colors = tuple(mixed(color, (255, 255, 255), 0.35) for color in colors)
    colors = tuple(color if abs(luma(color) - luma(paper)) > 60 else mixed(color, ink, 0.6) for color in colors)
    face, script = kit.typeface()
    size = min(round(OVERSAMPLING * kit.uniform(9, 18)), round((bottom - top) / 12))
    font, title = face.at(size), face.at(round(size * 1.3))
    draw.text(((left + right) / 2, top), phrase(kit, script, 2), font=title, fill=ink, anchor="ma")
    left, top, right, bottom = left + 3.2 * size, top + 2.4 * size, right - size, bottom - 2.4 * size
    thin = max(round(OVERSAMPLING * kit.uniform(0.8, 1.6)), 3)
    ticks = kit.integer(4, 9)
    faint = mixed(paper, ink, 0.2)
    for k in range(ticks + 1):
        x, y = left + (right - left) * k / ticks, bottom - (bottom - top) * k / ticks
        if ticks % 2:
            draw.line([(left, y), (right, y)], faint, max(thin // 2, 2))
            draw.line([(x, top), (x, bottom)], faint, max(thin // 2, 2))
        draw.line([(x, bottom), (x, bottom + size * 0.3)], ink, thin)
        draw.line([(left - size * 0.3, y), (left, y)], ink, thin)
        draw.text((x, bottom + size * 0.5), f"{k * 5}", font=font, fill=ink, anchor="ma")
        draw.text((left - size * 0.5, y), f"{k / 10:.1f}", font=font, fill=ink, anchor="rm")
    draw.rectangle((left, top, right, bottom), None, ink, thin) if kit.chance(0.5) else draw.line(
        [(left, top), (left, bottom), (right, bottom)], ink, thin
    )
    mode, stroke = kit.pick(("curves", "curves", "bars", "points", "area")), round(OVERSAMPLING * kit.uniform(1, 3.5))
    series, count = kit.integer(1, 4), kit.integer(6, 14)
    for index in range(series):
        values, color = _curve(kit), colors[index % len(colors)]
        if mode == "bars":
            width = (right - left) / count / (series + 0.5)
            for k in range(count):
                x = left + (right - left) * k / count + width * (index + 0.5)
                draw.rectangle((x, bottom - (bottom - top) * values[k * 100 // count], x + width, bottom), color)
        elif mode == "points":
            r = OVERSAMPLING * kit.uniform(2, 5)
            for k in range(0, 101, 2):
                x, y = (
                    left + (right - left) * k / 100,
                    bottom - (bottom - top) * (values[k] * 0.8 + kit.uniform(0, 0.18)),
                )
                draw.circle((x, y), r, color if index % 2 == 0 else None, color, max(round(r / 3), 2))
        else:
            path = [(left + (right - left) * k / 100, bottom - (bottom - top) * v) for k, v in enumerate(values)]
            if mode == "area":
                draw.polygon([(left, bottom), *path, (right, bottom)], mixed(paper, color, 0.5))
            draw.line(path, color, stroke, joint="curve")
    if mode != "area" and kit.chance(0.6):
        _legend(kit, draw, (right, top), [colors[k % len(colors)] for k in range(series)], size, (paper, ink))


def _legend(
    kit: Kit,
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    keys: list[Color],
    size: int,
    colors: tuple[Color, Color],
) -> None:
    """Names of the series in a frame, its top right corner given."""
    face, script = kit.typeface("latin")
    font, names = face.at(size), [word(kit, script) for _ in keys]
    width = max(font.getlength(name) for name in names) + 3 * size
    left, top = corner[0] - width - size * 0.5, corner[1] + size * 0.5
    draw.rectangle((left, top, left + width, top + size * (1.5 * len(keys) + 0.4)), colors[0], colors[1], 3)
    for row, (key, name) in enumerate(zip(keys, names, strict=True)):
        y = top + size * (1.5 * row + 1)
        draw.line([(left + size * 0.4, y), (left + size * 1.8, y)], key, round(size * 0.25))
        draw.text((left + size * 2.2, y), name, font=font, fill=colors[1], anchor="lm")


def _pie(kit: Kit, draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], paper: Color, ink: Color) -> None:
    left, top, right, bottom = box
    colors, radius = kit.pick(PALETTES[:3]), min(right - left, bottom - top) * 0.36
    middle = (left + right) / 2, (top + bottom) / 2
    face, script = kit.typeface()
    font, angle = face.at(max(round(radius * 0.12), 36)), kit.uniform(0, 360)
    shares = [kit.uniform(0.3, 1) for _ in range(kit.integer(3, 8))]
    hole = radius * kit.uniform(0.4, 0.7) if kit.chance(0.4) else 0
    frame = (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius)
    for k, share in enumerate(shares):
        sweep = 360 * share / sum(shares)
        draw.pieslice(frame, angle, angle + sweep, mixed(colors[k % 5], paper, 0.25 * (k // 5)), paper, OVERSAMPLING)
        out = math.radians(angle + sweep / 2)
        place = middle[0] + radius * 1.12 * math.cos(out), middle[1] + radius * 1.12 * math.sin(out)
        draw.text(place, word(kit, script), font=font, fill=ink, anchor="lm" if math.cos(out) > 0 else "rm")
        angle += sweep
    if hole:
        draw.circle(middle, hole, paper)


def plot(kit: Kit) -> Image.Image:
    """One chart or four, on paper or on dark ground."""
    paper, ink = ((255, 255, 255), (20, 20, 20)) if kit.chance(0.6) else kit.paper_and_ink()
    canvas = sheet(kit.side, paper)
    draw, side = ImageDraw.Draw(canvas), canvas.width
    across = 2 if kit.chance(0.35) else 1
    cell, pad = side / across, side * 0.015
    for row in range(across):
        for place in range(across):
            box = (place * cell + pad, row * cell + pad, (place + 1) * cell - pad, (row + 1) * cell - pad)
            (_pie if kit.chance(0.15) else _chart)(kit, draw, box, paper, ink)
    return reduced(canvas)
