"""Diagrams and technical drawings: boxes with arrows, parts with dimensions and hatching."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from .kit import OVERSAMPLING, Color, Kit, luma, mixed, reduced, sheet
from .planes import Point
from .words import phrase


def arrow(draw: ImageDraw.ImageDraw, start: Point, end: Point, color: Color, width: int, head: float) -> None:
    """A line with a filled head of `head` px at its end."""
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    neck = end[0] - head * math.cos(angle), end[1] - head * math.sin(angle)
    draw.line([start, neck], color, width)
    across = -math.sin(angle) * head * 0.4, math.cos(angle) * head * 0.4
    draw.polygon([end, (neck[0] + across[0], neck[1] + across[1]), (neck[0] - across[0], neck[1] - across[1])], color)


def flowchart(kit: Kit) -> Image.Image:
    """Boxes, ellipses and diamonds with words in them, joined by arrows."""
    paper, ink = kit.paper_and_ink(0.35)
    canvas = sheet(kit.side, paper)
    draw, side = ImageDraw.Draw(canvas), canvas.width
    columns, rows = kit.integer(2, 4), kit.integer(3, 6)
    width, height = side / columns * kit.uniform(0.6, 0.75), side / rows * kit.uniform(0.4, 0.6)
    stroke = round(OVERSAMPLING * kit.uniform(1, 3))
    fills = [paper, mixed(paper, kit.accent(), 0.3), mixed(paper, kit.accent(), 0.5)]
    middles = {
        (i, j): (side * (i + 0.5) / columns, side * (j + 0.5) / rows) for i in range(columns) for j in range(rows)
    }
    for (i, j), (x, y) in middles.items():
        if (i, j + 1) in middles and kit.chance(0.8):
            arrow(draw, (x, y), (x, y + side / rows - height / 2), ink, stroke, height * 0.2)
        if (i + 1, j) in middles and kit.chance(0.4):
            arrow(draw, (x, y), (x + side / columns - width / 2, y), ink, stroke, height * 0.2)
    face, script = kit.typeface()
    for x, y in middles.values():
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        fill, shape = kit.pick(fills), kit.uniform(0, 1)
        if shape < 0.6:
            draw.rounded_rectangle(box, height * 0.15 * (shape < 0.3), fill, ink, stroke)
        elif shape < 0.8:
            draw.ellipse(box, fill, ink, stroke)
        else:
            diamond = [(x, box[1]), (box[2], y), (x, box[3]), (box[0], y)]
            draw.polygon(diamond, fill)
            draw.line([*diamond, diamond[0], diamond[1]], ink, stroke, joint="curve")
        text = phrase(kit, script, 1)
        size = height * 0.4
        font = face.at(round(size * min(1, width * 0.7 / face.at(round(size)).getlength(text))))
        draw.text((x, y), text, font=font, fill=ink if abs(luma(fill) - luma(ink)) > 70 else paper, anchor="mm")
    return reduced(canvas)


def _dimension(kit: Kit, draw: ImageDraw.ImageDraw, ends: tuple[Point, Point], ink: Color, size: int) -> None:
    """A measure between two points on a level, its number above the line."""
    (x0, y), (x1, _) = ends
    thin = max(round(size * 0.07), 3)
    middle = (x0 + x1) / 2
    for x in (x0, x1):
        draw.line([(x, y - size), (x, y + size * 0.5)], ink, thin)
        arrow(draw, (middle, y), (x, y), ink, thin, size * 0.6)
    face, _ = kit.typeface("latin")
    draw.text((middle, y - size * 0.2), f"{kit.integer(5, 480)}", font=face.at(size), fill=ink, anchor="ms")


def technical(kit: Kit) -> Image.Image:
    """Parts in outline with hatched sections, centre lines and dimensions, on paper or as a blueprint."""
    paper, ink = kit.pick(
        (((255, 255, 255), (15, 15, 15)), ((24, 66, 128), (230, 240, 255)), ((250, 247, 235), (40, 40, 60)))
    )
    canvas = sheet(kit.side, paper)
    draw, side = ImageDraw.Draw(canvas), canvas.width
    stroke, thin = round(OVERSAMPLING * kit.uniform(1.5, 3)), round(OVERSAMPLING * kit.uniform(0.6, 1))
    if kit.chance(0.3):
        for k in range(0, side, side // 40):
            for line in ([(k, 0), (k, side)], [(0, k), (side, k)]):
                draw.line(line, mixed(paper, ink, 0.15), 2)
    across = kit.integer(1, 3)
    cell, size = side / across, round(OVERSAMPLING * kit.uniform(10, 18))
    for row in range(across):
        for place in range(across):
            x, y, r = (place + 0.5) * cell, (row + 0.48) * cell, cell * kit.uniform(0.26, 0.36)
            if kit.chance(0.5):
                _flange(kit, draw, (x, y), r, ink, (stroke, thin))
            else:
                _section(kit, canvas, (x, y), r, ink, (stroke, thin))
            for ends in ([(x - 1.2 * r, y), (x + 1.2 * r, y)], [(x, y - 1.2 * r), (x, y + 1.2 * r)]):
                draw.line(ends, mixed(paper, ink, 0.7), thin)
            level = min(y + 1.25 * r + size, (row + 1) * cell - size * 0.6)
            _dimension(kit, draw, ((x - r, level), (x + r, level)), ink, size)
    draw.rectangle((2 * stroke, 2 * stroke, side - 2 * stroke, side - 2 * stroke), None, ink, stroke)
    return reduced(canvas)


def _flange(kit: Kit, draw: ImageDraw.ImageDraw, middle: Point, r: float, ink: Color, strokes: tuple[int, int]) -> None:
    """Circles within each other and a ring of holes, or a gear."""
    stroke, thin = strokes
    count = kit.integer(5, 14)
    if kit.chance(0.5):
        teeth = [(2 * math.pi * k / (8 * count), r * (1 if k % 4 in (1, 2) else 0.88)) for k in range(8 * count)]
        points = [(middle[0] + d * math.cos(a), middle[1] + d * math.sin(a)) for a, d in teeth]
        draw.line([*points, points[0]], ink, stroke, joint="curve")
    else:
        draw.circle(middle, r, None, ink, stroke)
    draw.circle(middle, r * kit.uniform(0.2, 0.4), None, ink, stroke)
    draw.circle(middle, r * 0.68, None, ink, thin)
    for k in range(count):
        a = 2 * math.pi * k / count
        hole = middle[0] + 0.68 * r * math.cos(a), middle[1] + 0.68 * r * math.sin(a)
        draw.circle(hole, r * 0.9 / count + 2 * thin, None, ink, stroke)


def _section(kit: Kit, canvas: Image.Image, middle: Point, r: float, ink: Color, strokes: tuple[int, int]) -> None:
    """A stepped profile cut open, hatched at 45 degrees."""
    stroke, thin = strokes
    steps = [r * kit.uniform(0.35, 1) for _ in range(kit.integer(2, 5))]
    upper = []
    for k, half in enumerate(steps):
        x0, x1 = middle[0] - r + 2 * r * k / len(steps), middle[0] - r + 2 * r * (k + 1) / len(steps)
        upper += [(x0, middle[1] - half), (x1, middle[1] - half)]
    lower = [(x, 2 * middle[1] - y) for x, y in reversed(upper)]
    bore = r * kit.uniform(0.1, 0.3)
    mask = Image.new("L", canvas.size)
    ImageDraw.Draw(mask).polygon(upper + lower, 255)
    ImageDraw.Draw(mask).rectangle((middle[0] - r, middle[1] - bore, middle[0] + r, middle[1] + bore), 0)
    hatch = Image.new("L", canvas.size)
    pen, pitch = ImageDraw.Draw(hatch), OVERSAMPLING * kit.uniform(4, 10)
    for k in range(round(2 * canvas.width / pitch)):
        pen.line([(k * pitch, 0), (k * pitch - canvas.width, canvas.width)], 255, thin)
    canvas.paste(ink, (0, 0), Image.composite(hatch, Image.new("L", canvas.size), mask))
    draw = ImageDraw.Draw(canvas)
    draw.line([*upper, *lower, upper[0], upper[1]], ink, stroke, joint="curve")
    for y in (middle[1] - bore, middle[1] + bore):
        draw.line([(middle[0] - r, y), (middle[0] + r, y)], ink, stroke)
