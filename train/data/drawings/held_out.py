"""Families of test pictures that no training picture comes from."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from .backgrounds import gradient, photograph
from .kit import OVERSAMPLING, Kit, luma, mixed, over, reduced, sheet
from .plots import PALETTES
from .words import number, phrase, word


def timetable(kit: Kit) -> Image.Image:
    """Rows of times, places and numbers between rules, as of boards and receipts."""
    paper, ink = kit.paper_and_ink(0.6)
    canvas = sheet(kit.side, paper)
    draw, side = ImageDraw.Draw(canvas), canvas.width
    face, script = kit.typeface()
    size = round(OVERSAMPLING * kit.log_uniform(12, 30))
    font, step = face.at(size), round(size * kit.uniform(1.4, 1.9))
    draw.text((side * 0.04, step * 0.3), phrase(kit, script, 2), font=face.at(round(size * 1.8)), fill=ink)
    accent = kit.ink_on(paper)
    for row in range(2, side // step):
        y = row * step + step * 0.9
        time = f"{kit.integer(0, 23):02}:{kit.integer(0, 59):02}"
        draw.text((side * 0.04, y), time, font=font, fill=accent, anchor="lm")
        draw.text((side * 0.26, y), word(kit, script), font=font, fill=ink, anchor="lm")
        draw.text((side * 0.96, y), number(kit), font=font, fill=ink, anchor="rm")
        draw.line([(side * 0.03, y + step / 2), (side * 0.97, y + step / 2)], mixed(paper, ink, 0.3), OVERSAMPLING)
    return reduced(canvas)


def radar(kit: Kit) -> Image.Image:
    """Charts and gauges with a middle: rings, rays, ticks, closed curves."""
    paper, ink = kit.paper_and_ink(0.4)
    canvas = sheet(kit.side, paper)
    draw, side = ImageDraw.Draw(canvas), canvas.width
    middle, radius = (side / 2, side / 2), side * kit.uniform(0.34, 0.42)
    thin, count = round(OVERSAMPLING * kit.uniform(0.8, 1.5)), kit.integer(5, 12)
    face, script = kit.typeface()
    font, palette = face.at(round(radius * 0.09)), kit.pick(PALETTES[:3])

    def at(angle: float, distance: float) -> tuple[float, float]:
        return middle[0] + distance * math.cos(angle), middle[1] + distance * math.sin(angle)

    if kit.chance(0.5):
        rays = [2 * math.pi * k / count for k in range(count)]
        for ring in range(1, 6):
            draw.line([at(a, radius * ring / 5) for a in [*rays, rays[0]]], mixed(paper, ink, 0.5), thin)
        for angle in rays:
            draw.line([middle, at(angle, radius)], mixed(paper, ink, 0.5), thin)
            draw.text(at(angle, radius * 1.12), word(kit, script), font=font, fill=ink, anchor="mm")
        for k in range(kit.integer(1, 3)):
            points = [at(angle, radius * kit.uniform(0.3, 1)) for angle in rays]
            draw.line([*points, points[0], points[1]], palette[k], 2 * thin, joint="curve")
        return reduced(canvas)
    draw.circle(middle, radius * 1.1, None, ink, 4 * thin)
    for k in range(101):
        angle = math.radians(135 + 2.7 * k)
        inner = 0.88 if k % 10 == 0 else 0.93 if k % 5 == 0 else 0.96
        draw.line([at(angle, radius * inner), at(angle, radius)], ink, 2 * thin if k % 10 == 0 else thin)
        if k % 10 == 0:
            draw.text(at(angle, radius * 0.76), f"{k}", font=font, fill=ink, anchor="mm")
    needle = math.radians(kit.uniform(135, 405))
    draw.polygon(
        [at(needle, radius * 0.9), at(needle + 1.6, radius * 0.04), at(needle - 1.6, radius * 0.04)], kit.accent()
    )
    draw.circle(middle, radius * 0.07, ink)
    draw.text(at(math.pi / 2, radius * 0.5), word(kit, script), font=font, fill=ink, anchor="mm")
    return reduced(canvas)


def circuit(kit: Kit) -> Image.Image:
    """Wires at right angles with resistors, capacitors, coils and joints between them."""
    paper, ink = kit.paper_and_ink(0.3)
    canvas = sheet(kit.side, paper)
    draw, side = ImageDraw.Draw(canvas), canvas.width
    pitch = side / kit.integer(5, 9)
    width, (face, _) = round(OVERSAMPLING * kit.uniform(1, 2.5)), kit.typeface("latin")
    font = face.at(round(pitch * 0.2))
    for row in range(math.ceil(side / pitch) + 1):
        for place in range(math.ceil(side / pitch) + 1):
            x, y = place * pitch, row * pitch
            for level in (True, False):
                if kit.chance(0.25):
                    continue
                part = kit.pick(("wire", "wire", "resistor", "capacitor", "coil", "zigzag"))
                points = {t: (x + t * pitch, y) if level else (x, y + t * pitch) for t in (0, 0.3, 0.46, 0.54, 0.7, 1)}
                cross = pitch * 0.1

                def beside(t: float, d: float, x: float = x, y: float = y, level: bool = level) -> tuple[float, float]:
                    return (x + t * pitch, y + d) if level else (x + d, y + t * pitch)

                if part == "wire":
                    draw.line([points[0], points[1]], ink, width)
                    continue
                near, far = (0.46, 0.54) if part == "capacitor" else (0.3, 0.7)
                draw.line([points[0], points[near]], ink, width)
                draw.line([points[far], points[1]], ink, width)
                if part == "resistor":
                    (x0, y0), (x1, y1) = beside(near, -cross * 0.7), beside(far, cross * 0.7)
                    draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), None, ink, width)
                elif part == "capacitor":
                    for t in (near, far):
                        draw.line([beside(t, -cross), beside(t, cross)], ink, width)
                else:
                    steps = [near + (far - near) * k / 48 for k in range(49)]
                    if part == "coil":
                        bend = [
                            beside(t, -cross * abs(math.sin(4 * math.pi * (t - near) / (far - near)))) for t in steps
                        ]
                    else:
                        zig = (0, 1, 0, -1)
                        bend = [beside(t, cross * zig[k // 4 % 4]) for k, t in enumerate(steps) if k % 4 == 0]
                    draw.line(bend, ink, width, joint="curve")
                label = f"{part[0].upper()}{kit.integer(1, 99)}"
                place_of = beside(0.5, -cross * 2) if level else beside(0.5, cross * 1.6)
                draw.text(place_of, label, font=font, fill=ink, anchor="mm" if level else "lm")
            if kit.chance(0.5):
                draw.circle((x, y), 2.2 * width, ink)
    return reduced(canvas)


def score(kit: Kit) -> Image.Image:
    """Music: five-line staves with bars, notes, stems and beams."""
    paper, ink = kit.paper_and_ink(0.15)
    canvas = sheet(kit.side, paper)
    draw, side = ImageDraw.Draw(canvas), canvas.width
    gap = OVERSAMPLING * kit.log_uniform(5, 12)
    thin = max(round(gap * 0.12), 3)
    top = gap * 4
    while top < side - 6 * gap:
        for k in range(5):
            draw.line([(gap, top + k * gap), (side - gap, top + k * gap)], ink, thin)
        x, beamed = gap * 3, []
        while x < side - 3 * gap:
            level = kit.integer(-2, 9)
            y = top + 4 * gap - level * gap / 2
            head = (x - gap * 0.62, y - gap * 0.45, x + gap * 0.62, y + gap * 0.45)
            draw.ellipse(head, ink if kit.chance(0.8) else paper, ink, thin * 2)
            stem = (x + gap * 0.55, y - gap * 3.4)
            draw.line([(stem[0], y), stem], ink, thin)
            beamed.append(stem)
            if len(beamed) == 2:
                if kit.chance(0.6):
                    draw.line(beamed, ink, round(gap * 0.45))
                beamed = []
            if kit.chance(0.15):
                draw.line([(x + gap * 1.6, top), (x + gap * 1.6, top + 4 * gap)], ink, thin)
                x, beamed = x + gap, []
            x += gap * kit.uniform(2, 3.4)
        top += gap * kit.uniform(9, 11)
    return reduced(canvas)


def contours(kit: Kit) -> Image.Image:
    """Height lines of a smooth surface, on flat or graded ground."""
    side = kit.side * OVERSAMPLING
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    height = np.zeros_like(x)
    for _ in range(kit.integer(4, 9)):
        distance = (x - kit.uniform(0, 1)) ** 2 + (y - kit.uniform(0, 1)) ** 2
        height += kit.uniform(-1, 1) * np.exp(-distance / kit.uniform(0.01, 0.12))
    levels = height * kit.integer(8, 24)
    slope = np.maximum(np.hypot(*np.gradient(levels)), 1e-6)
    width = OVERSAMPLING * kit.uniform(0.8, 2.2)
    line = np.abs(levels - np.round(levels)) / slope < width / 2
    paper, ink = kit.paper_and_ink(0.4)
    layer = Image.fromarray(np.dstack([np.full((side, side, 3), ink, np.uint8), np.uint8(255) * line]))
    return over(reduced(layer), gradient(kit, paper, mixed(paper, kit.color(), 0.2)))


def honeycomb(kit: Kit) -> Image.Image:
    """Hexagons: filled cells, or a wire net over a photograph."""
    layer = sheet(kit.side)
    draw, side = ImageDraw.Draw(layer), layer.width
    radius = OVERSAMPLING * kit.log_uniform(8, 50)
    filled = kit.chance(0.5)
    colors = [kit.color(0.8, (0.3, 1)) for _ in range(3)]
    wire = max(round(radius * kit.uniform(0.06, 0.2)), 3)
    for row in range(math.ceil(side / radius / 1.5) + 1):
        for place in range(math.ceil(side / radius / 1.7) + 1):
            x, y = (place + 0.5 * (row % 2)) * radius * math.sqrt(3), row * radius * 1.5
            size = radius - wire / 2 if filled else radius
            points = [(x + size * math.sin(k * math.pi / 3), y + size * math.cos(k * math.pi / 3)) for k in range(7)]
            if filled:
                draw.polygon(points, kit.pick(colors))
            else:
                draw.line([*points, points[1]], colors[0], wire, joint="curve")
    if not filled:
        return over(reduced(layer), photograph(kit, blurred=kit.chance(0.6)))
    light = sum(map(luma, colors)) < 384
    ground = (240, 240, 240) if light else (30, 30, 30)
    return over(reduced(layer), gradient(kit, ground, ground))


def rosette(kit: Kit) -> Image.Image:
    """Spirograph curves and guilloche as on banknotes, and stars of wedges."""
    paper, ink = kit.paper_and_ink(0.35)
    canvas = sheet(kit.side, paper)
    draw, side = ImageDraw.Draw(canvas), canvas.width
    if kit.chance(0.3):
        count, middle = kit.integer(18, 72), (side * kit.uniform(0.4, 0.6), side * kit.uniform(0.4, 0.6))
        for k in range(count):
            wedge = [2 * math.pi * (k + d) / count for d in (0, 0.5)]
            points = [(middle[0] + side * math.cos(a), middle[1] + side * math.sin(a)) for a in wedge]
            draw.polygon([middle, *points], ink)
        return reduced(canvas)
    for _ in range(kit.integer(1, 3)):
        color = kit.ink_on(paper)
        big, small, pen = kit.integer(30, 97), kit.integer(11, 29), kit.uniform(0.4, 1.4)
        scale = side * kit.uniform(0.35, 0.48) / (big - small + pen * small)
        turns = small // math.gcd(big, small)
        path = []
        for k in range(400 * turns + 1):
            t = 2 * math.pi * k / 400
            u = (big - small) * math.cos(t) + pen * small * math.cos((big - small) / small * t)
            v = (big - small) * math.sin(t) - pen * small * math.sin((big - small) / small * t)
            path.append((side / 2 + scale * u, side / 2 + scale * v))
        draw.line(path, color, round(OVERSAMPLING * kit.uniform(0.8, 1.6)), joint="curve")
    return reduced(canvas)
