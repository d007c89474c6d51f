"""Flat things seen at an angle."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .kit import Kit

Point = tuple[float, float]


def projection(source: list[Point], target: list[Point]) -> list[float]:
    """The eight coefficients that take four points of the target to four of the source, as Pillow's PERSPECTIVE wants.

    x = (a X + b Y + c) / (g X + h Y + 1) and y = (d X + e Y + f) / (g X + h Y + 1).
    """
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[u, v, 1, 0, 0, 0, -x * u, -x * v], [0, 0, 0, u, v, 1, -y * u, -y * v]]
        values += [x, y]
    return np.linalg.solve(np.array(rows), np.array(values)).tolist()


def corners(width: float, height: float) -> list[Point]:
    """Of a rectangle, clockwise from the top left."""
    return [(0, 0), (width, 0), (width, height), (0, height)]


def seen_aslant(kit: Kit, plane: Image.Image, side: int, strength: float = 0.3) -> Image.Image:
    """A view of side x side px that the plane fills: its corners lie inside the plane, each moved by its own share."""
    width, height = plane.size
    source = [
        (
            x + (1 if x == 0 else -1) * width * kit.uniform(0, strength),
            y + (1 if y == 0 else -1) * height * kit.uniform(0, strength),
        )
        for x, y in corners(width, height)
    ]
    coefficients = projection(source, corners(side, side))
    return plane.transform((side, side), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)


def standing(kit: Kit, panel: Image.Image, side: int, share: float = 0.7) -> Image.Image:
    """A panel as it stands in a scene of side x side px: turned and tapered, transparent around it.

    panel: RGBA. share: the longer of its sides, of the scene's.
    """
    scale = side * share / max(panel.size)
    half_width, half_height = panel.width * scale / 2, panel.height * scale / 2
    angle, taper, lean = kit.uniform(-0.25, 0.25), kit.uniform(-0.3, 0.3), kit.uniform(-0.15, 0.15)
    middle = side * kit.uniform(0.45, 0.55), side * kit.uniform(0.45, 0.55)
    target = []
    for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        u, v = x * half_width * (1 + lean * y), y * half_height * (1 + taper * x)
        turned = u * np.cos(angle) - v * np.sin(angle), u * np.sin(angle) + v * np.cos(angle)
        target.append((middle[0] + turned[0], middle[1] + turned[1]))
    coefficients = projection(corners(*panel.size), target)
    premultiplied = panel.convert("RGBa")
    view = premultiplied.transform((side, side), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)
    return view.convert("RGBA")
