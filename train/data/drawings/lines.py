"""Thin lines and flat shapes: grids, ropes, halftone, cut paper, street maps."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from .backgrounds import background, gradient, photograph
from .kit import OVERSAMPLING, Kit, mixed, over, reduced, sheet
from .words import phrase


def grid(kit: Kit) -> Image.Image:
    """Line grids, straight or turned, fans and rings, of 0.7 to 4 px on spacings of 3 to 50 px."""
    paper, ink = kit.paper_and_ink()
    layer = sheet(kit.side)
    draw, side = ImageDraw.Draw(layer), layer.width
    pitch = OVERSAMPLING * kit.log_uniform(3, 50)
    width = max(round(min(OVERSAMPLING * kit.log_uniform(0.7, 4), pitch * 0.5)), 2)
    mode = kit.pick(("square", "square", "lines", "fan", "rings", "millimetre"))
    if mode == "rings":
        middle = side * kit.uniform(0.2, 0.8), side * kit.uniform(0.2, 0.8)
        for k in range(1, math.ceil(1.2 * side / pitch)):
            draw.circle(middle, k * pitch, None, ink, width)
    elif mode == "fan":
        middle, count = (side * kit.uniform(0, 1), side * kit.uniform(0, 1)), kit.integer(24, 140)
        for k in range(count):
            angle = 2 * math.pi * k / count
            far = middle[0] + 2 * side * math.cos(angle), middle[1] + 2 * side * math.sin(angle)
            draw.line([middle, far], ink, width)
    else:
        for k in range(-1, math.ceil(side / pitch) + 1):
            stroke = 2 * width if mode == "millimetre" and k % 5 == 0 else width
            draw.line([(k * pitch, -side), (k * pitch, 2 * side)], ink, stroke)
            if mode != "lines":
                draw.line([(-side, k * pitch), (2 * side, k * pitch)], ink, stroke)
        if kit.chance(0.6):
            turned = (
                layer.convert("RGBa")
                .resize((side * 3 // 2, side * 3 // 2))
                .rotate(kit.uniform(-45, 45), Image.Resampling.BICUBIC)
            )
            layer = turned.crop((side // 4, side // 4, side // 4 + side, side // 4 + side)).convert("RGBA")
    ground = background(kit) if kit.chance(0.2) else gradient(kit, paper, paper)
    return over(reduced(layer), ground)


def _rope(kit: Kit, draw: ImageDraw.ImageDraw, path: list[tuple[float, float]], width: float, color: tuple) -> None:
    """A twisted rope along a path: a dark band, and strands across it."""
    draw.line(path, mixed(color, (0, 0, 0), 0.55), round(width), joint="curve")
    if width < 5 * OVERSAMPLING:
        draw.line(path, color, max(round(width * 0.6), 2), joint="curve")
        return
    points = np.array(path)
    ends = np.concatenate([[0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
    along = np.arange(0, ends[-1], width * 0.55)
    x, y = (np.interp(along, ends, points[:, axis]) for axis in (0, 1))
    dx, dy = np.gradient(x), np.gradient(y)
    length = np.hypot(dx, dy)
    ux, uy = dx / length * width, dy / length * width
    for a in np.stack(
        [x - 0.42 * uy - 0.3 * ux, y + 0.42 * ux - 0.3 * uy, x + 0.42 * uy + 0.3 * ux, y - 0.42 * ux + 0.3 * uy], 1
    ):
        draw.line(a.tolist(), color, round(width * 0.36))


def ropes(kit: Kit) -> Image.Image:
    """Wires, cables and twisted ropes that hang in front of a photograph or the sky."""
    sky = gradient(kit, kit.color(0.5, (0.6, 1)), kit.color(0.5, (0.6, 1)))
    ground = photograph(kit, blurred=kit.chance(0.6)) if kit.chance(0.6) else sky
    layer = sheet(kit.side)
    draw, side = ImageDraw.Draw(layer), layer.width
    color = kit.pick(((25, 25, 28), (200, 175, 130), (235, 230, 220), (120, 125, 130), (160, 60, 50), (60, 90, 140)))
    for _ in range(kit.integer(3, 14)):
        width = OVERSAMPLING * kit.log_uniform(0.8, 18)
        y0, y1, sag = (side * kit.uniform(-0.3, 1.2) for _ in range(3))
        steep = kit.chance(0.3)
        path = []
        for k in range(401):
            t = k / 400
            x, y = side * (1.1 * t - 0.05), y0 + (y1 - y0) * t + sag * 0.4 * 4 * t * (1 - t)
            path.append((y, x) if steep else (x, y))
        _rope(kit, draw, path, width, color)
    return over(reduced(layer), ground)


def halftone(kit: Kit) -> Image.Image:
    """A photograph printed in dots or lines of one ink, or of three on their own angles."""
    source = photograph(kit, blurred=False).resize(
        (kit.side * OVERSAMPLING, kit.side * OVERSAMPLING), Image.Resampling.BICUBIC
    )
    pitch = OVERSAMPLING * kit.log_uniform(5, 22)
    striped = kit.chance(0.3)
    y, x = np.mgrid[: source.height, : source.width].astype(np.float32)
    wave = 2 * np.pi / pitch

    def printed(channel: np.ndarray, angle: float) -> np.ndarray:
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        screen = (1 + np.cos(wave * u)) / 2 if striped else (2 + np.cos(wave * u) + np.cos(wave * v)) / 4
        return channel < screen

    if kit.chance(0.5):
        paper, ink = kit.paper_and_ink(0.2)
        grey = np.asarray(source.convert("L"), dtype=np.float32) / 255
        dots = printed(grey, kit.uniform(0, np.pi))
        inked = np.where(dots[..., None], np.array(ink, np.uint8), np.array(paper, np.uint8))
    else:
        rgb = np.asarray(source, dtype=np.float32) / 255
        angles = [np.deg2rad(degrees) for degrees in (15, 75, 0)]
        inked = np.stack([np.where(printed(rgb[..., c], a), 25, 250) for c, a in enumerate(angles)], axis=-1)
    return reduced(Image.fromarray(inked.astype(np.uint8)))


def shapes(kit: Kit) -> Image.Image:
    """Flat and graded polygons, discs and stripes over each other, as of cut paper."""
    picture = background(kit, 0.15)
    for _ in range(kit.integer(4, 30)):
        mask = Image.new("L", (kit.side * OVERSAMPLING, kit.side * OVERSAMPLING))
        draw, side = ImageDraw.Draw(mask), mask.width
        x, y, r = side * kit.uniform(0, 1), side * kit.uniform(0, 1), side * kit.log_uniform(0.02, 0.35)
        mode = kit.pick(("disc", "ring", "polygon", "bar", "star"))
        if mode == "disc":
            draw.circle((x, y), r, 255)
        elif mode == "ring":
            draw.circle((x, y), r, None, 255, max(round(r * kit.uniform(0.03, 0.5)), 2))
        elif mode == "bar":
            angle, w = kit.uniform(0, math.pi), max(round(r * 0.2), 3)
            dx, dy = 2 * r * math.cos(angle), 2 * r * math.sin(angle)
            draw.line([(x - dx, y - dy), (x + dx, y + dy)], 255, w)
        else:
            count, turn = kit.integer(3, 8), kit.uniform(0, 6)
            inner = kit.uniform(0.3, 0.7) if mode == "star" else 1
            points = [(2 * math.pi * k / (2 * count) + turn, r * (inner if k % 2 else 1)) for k in range(2 * count)]
            if mode == "polygon":
                points = points[::2]
            draw.polygon([(x + d * math.cos(a), y + d * math.sin(a)) for a, d in points], 255)
        fill = gradient(kit) if kit.chance(0.3) else Image.new("RGB", picture.size, kit.color(0.9, (0.05, 1)))
        picture.paste(fill, (0, 0), reduced(mask))
    return picture


def street_map(kit: Kit) -> Image.Image:
    """Streets of several widths with borders, blocks, a river, names along them."""
    dark = kit.chance(0.3)
    land, block = ((32, 36, 44), (44, 50, 60)) if dark else ((242, 239, 233), (217, 208, 201))
    road, border = ((90, 96, 108), (20, 22, 28)) if dark else ((255, 255, 255), (170, 165, 160))
    canvas = sheet(kit.side, land)
    draw, side = ImageDraw.Draw(canvas), canvas.width
    xs = np.cumsum([0] + [side * kit.uniform(0.05, 0.2) for _ in range(14)]) - side * 0.1
    ys = np.cumsum([0] + [side * kit.uniform(0.05, 0.2) for _ in range(14)]) - side * 0.1
    nodes = {
        (i, j): (float(x) + side * kit.uniform(-0.02, 0.02), float(y) + side * kit.uniform(-0.02, 0.02))
        for i, x in enumerate(xs)
        for j, y in enumerate(ys)
    }
    green = (40, 58, 46) if dark else (200, 230, 190)
    for i in range(14):
        for j in range(14):
            fill = green if kit.chance(0.15) else block
            corners = [nodes[p] for p in ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))]
            middle = sum(p[0] for p in corners) / 4, sum(p[1] for p in corners) / 4
            shrunk = [(middle[0] + (p[0] - middle[0]) * 0.75, middle[1] + (p[1] - middle[1]) * 0.75) for p in corners]
            if kit.chance(0.8):
                draw.polygon(shrunk, fill, border, 2)
    bend, phase = side * kit.uniform(0.05, 0.4), kit.uniform(0, 6)
    river = [(side * t / 40, side / 2 + bend * math.sin(t / 8 + phase)) for t in range(-1, 42)]
    draw.line(river, (50, 80, 110) if dark else (170, 211, 223), round(side * 0.05), joint="curve")
    streets = [[nodes[i, j] for i in range(15)] for j in range(15)] + [
        [nodes[i, j] for j in range(15)] for i in range(15)
    ]
    widths = [OVERSAMPLING * kit.pick((2, 3, 5, 9)) for _ in streets]
    for shade, extra in ((border, 2 * OVERSAMPLING), (road, 0)):
        for street, width in zip(streets, widths, strict=True):
            fill = (250, 210, 120) if not dark and width > 30 and not extra else shade
            draw.line(street, fill, width + extra, joint="curve")
    face, script = kit.typeface()
    for street in streets[::2]:
        x, y = street[kit.integer(1, 9)]
        size = round(OVERSAMPLING * kit.uniform(10, 20))
        ink, halo = ((235, 235, 235), land) if dark else ((60, 50, 50), (255, 255, 255))
        draw.text((x, y), phrase(kit, script, 1), font=face.at(size), fill=ink, stroke_width=8, stroke_fill=halo)
    return reduced(canvas)
