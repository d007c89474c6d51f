"""Text: pages, posters, captions over photographs, signs that stand in a scene."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFilter

from .backgrounds import background, gradient, photograph
from .kit import OVERSAMPLING, Color, Kit, luma, mean_color, mixed, over, reduced, sheet
from .planes import standing
from .words import number, phrase

PAGE_SIZES = (11.0, 42.0)
"""Letters of running text, px of the em square."""


def fitted(kit: Kit, script: str, font: ImageDraw.ImageFont.FreeTypeFont, width: float) -> str:
    """As many words as fit into a line; one at least."""
    text = phrase(kit, script, 1)
    joint = " " if " " in phrase(kit, script, 2) else ""
    for _ in range(60):
        longer = f"{text}{joint}{phrase(kit, script, 1)}"
        if font.getlength(longer) > width:
            break
        text = longer
    return text


def column(kit: Kit, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], size: int, color: Color) -> None:
    """Paragraphs of one typeface in a box (left, top, right, bottom) of the canvas; `size` in its px."""
    face, script = kit.typeface()
    font, heading = face.at(size), face.at(round(size * kit.uniform(1.3, 2.2)))
    left, top, right, bottom = box
    leading = round(size * kit.uniform(1.2, 1.6))
    centred, start = kit.chance(0.15), True
    while top + leading < bottom:
        if start and kit.chance(0.4):
            draw.text((left, top), fitted(kit, script, heading, (right - left) * 0.8), font=heading, fill=color)
            top += round(heading.size * 1.5)
            start = False
            continue
        last = kit.chance(0.15)
        text = fitted(kit, script, font, (right - left) * (kit.uniform(0.3, 0.9) if last else 1))
        if top + leading < bottom:
            x = left + (right - left - font.getlength(text)) / 2 if centred else left
            draw.text((x, top), text, font=font, fill=color)
        top += leading * 3 // 2 if last else leading
        start = last


def page(kit: Kit) -> Image.Image:
    """Printed pages and slides: columns on paper, at times turned a little or standing in a scene."""
    paper, ink = kit.paper_and_ink()
    canvas = sheet(kit.side, paper)
    draw = ImageDraw.Draw(canvas)
    size = round(OVERSAMPLING * kit.log_uniform(*PAGE_SIZES))
    columns = 1 if size > 26 * OVERSAMPLING else kit.integer(1, 3)
    margin, gap = round(canvas.width * kit.uniform(0.02, 0.08)), 2 * size
    width = (canvas.width - 2 * margin - gap * (columns - 1)) // columns
    for index in range(columns):
        left = margin + index * (width + gap)
        column(kit, draw, (left, margin, left + width, canvas.height - margin // 2), size, ink)
        if index and kit.chance(0.3):
            draw.line([(left - gap // 2, margin), (left - gap // 2, canvas.height - margin)], ink, OVERSAMPLING)
    if kit.chance(0.3):
        view = standing(kit, canvas.convert("RGBA"), canvas.width, kit.uniform(0.9, 1.3))
        return over(reduced(view), background(kit))
    return reduced(canvas)


def styled(
    kit: Kit,
    layer: Image.Image,
    place: tuple[float, float],
    text: str,
    font: ImageDraw.ImageFont.FreeTypeFont,
    ink: Color,
) -> None:
    """A line of large letters: plain, or with an outline of the opposite brightness."""
    outline = round(font.size * kit.uniform(0.02, 0.06)) if kit.chance(0.25) else 0
    edge = (20, 20, 20) if luma(ink) > 127 else (245, 245, 245)
    ImageDraw.Draw(layer).text(place, text, font=font, fill=ink, stroke_width=outline, stroke_fill=edge)


def poster(kit: Kit) -> Image.Image:
    """A few lines of large letters in different typefaces, turned at times, on flat colours and gradients."""
    paper, ink = kit.paper_and_ink(0.5)
    ground = gradient(kit, paper, mixed(paper, kit.color(), 0.25))
    layer = sheet(kit.side)
    top = layer.height * kit.uniform(0.02, 0.1)
    while top < layer.height * 0.95:
        face, script = kit.typeface()
        size = round(OVERSAMPLING * kit.side * kit.log_uniform(0.04, 0.3))
        font = face.at(size)
        text = fitted(kit, script, font, layer.width * 0.9)
        if font.getlength(text) > layer.width:
            size = round(size * 0.9 * layer.width / font.getlength(text))
            font = face.at(size)
        color = ink if kit.chance(0.7) else kit.ink_on(paper)
        x = layer.width * kit.uniform(0.03, 0.08)
        styled(kit, layer, (x, top), text, font, color)
        top += size * kit.uniform(1.25, 1.6)
        if kit.chance(0.2):
            thick = OVERSAMPLING * kit.integer(1, 6)
            ImageDraw.Draw(layer).rectangle((x, top, x + layer.width * kit.uniform(0.3, 0.85), top + thick), color)
            top += 4 * thick
    if kit.chance(0.4):
        layer = layer.convert("RGBa").rotate(kit.uniform(-25, 25), Image.Resampling.BICUBIC).convert("RGBA")
    return over(reduced(layer), ground)


def caption(kit: Kit) -> Image.Image:
    """Lines over a photograph, readable by their brightness, an outline, a shadow or a panel behind them."""
    ground = photograph(kit, blurred=kit.chance(0.4))
    layer = sheet(kit.side)
    count = kit.integer(2, 6)
    for row in range(count):
        face, script = kit.typeface()
        band = layer.height / count
        size = round(min(OVERSAMPLING * kit.log_uniform(14, kit.side / 6), band * 0.7))
        font = face.at(size)
        text = fitted(kit, script, font, layer.width * kit.uniform(0.3, 0.9))
        box = font.getbbox(text)
        left = kit.uniform(0, max(layer.width - box[2], 1))
        top = band * row + kit.uniform(0, band - 1.3 * size)
        edges = [round(v / OVERSAMPLING) for v in (left + box[0], top + box[1], left + box[2], top + box[3])]
        under = ground.crop((edges[0], edges[1], max(edges[2], edges[0] + 1), max(edges[3], edges[1] + 1)))
        shade = mean_color(under)
        draw, style = ImageDraw.Draw(layer), kit.uniform(0, 1)
        light = luma(shade) < 128
        ink = kit.ink_on((255, 255, 255) if not light else (0, 0, 0)) if kit.chance(0.3) else (255 * light,) * 3
        opposite = (0, 0, 0) if luma(ink) > 127 else (255, 255, 255)
        if style < 0.35:
            pad = size * 0.3
            frame = (left + box[0] - pad, top + box[1] - pad, left + box[2] + pad, top + box[3] + pad)
            draw.rectangle(frame, (*opposite, kit.integer(150, 255)))
            draw.text((left, top), text, font=font, fill=ink)
        elif style < 0.6:
            outline = max(round(size * 0.05), OVERSAMPLING)
            draw.text((left, top), text, font=font, fill=ink, stroke_width=outline, stroke_fill=opposite)
        elif style < 0.8:
            shadow = Image.new("RGBA", layer.size, (*opposite, 0))
            ImageDraw.Draw(shadow).text((left + size * 0.05, top + size * 0.05), text, font=font, fill=(*opposite, 220))
            small = reduced(shadow).filter(ImageFilter.GaussianBlur(size * 0.02 / OVERSAMPLING + 0.5))
            ground = over(small, ground)
            draw.text((left, top), text, font=font, fill=ink)
        else:
            draw.text((left, top), text, font=font, fill=(0, 0, 0) if not light else (255, 255, 255))
    return over(reduced(layer), ground)


def panel(kit: Kit, width: int, height: int) -> Image.Image:
    """A sign: a rounded panel with a border and lines of large letters; RGBA [height, width]."""
    colors = ((0, 70, 140), (0, 110, 60), (200, 30, 30), (245, 200, 0), (250, 250, 250), (30, 30, 32), (120, 70, 30))
    board = kit.pick(colors) if kit.chance(0.7) else kit.accent()
    ink = (255, 255, 255) if luma(board) < 140 else (20, 20, 20)
    face = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(face)
    radius, edge = round(height * kit.uniform(0, 0.15)), round(height * kit.uniform(0.01, 0.03))
    draw.rounded_rectangle((0, 0, width - 1, height - 1), radius, board)
    if kit.chance(0.7):
        inset = 2 * edge
        draw.rounded_rectangle((inset, inset, width - 1 - inset, height - 1 - inset), radius, None, ink, edge)
    rows = kit.integer(1, 4)
    for row in range(rows):
        typeface, script = kit.typeface()
        text = phrase(kit, script, kit.integer(1, 2)) if kit.chance(0.8) else number(kit)
        size = height * 0.6 / rows
        font = typeface.at(round(size))
        font = typeface.at(max(round(size * min(1, width * 0.85 / font.getlength(text))), 8))
        x = (width - font.getlength(text)) / 2
        middle = height * (0.12 + 0.76 * (row + 0.5) / rows)
        draw.text((x, middle), text, font=font, fill=ink, anchor="lm")
    return face


def sign(kit: Kit) -> Image.Image:
    """A sign in front of a photograph, seen at an angle."""
    width = OVERSAMPLING * kit.side
    face = panel(kit, width, round(width * kit.uniform(0.3, 0.9)))
    view = standing(kit, face, width, kit.uniform(0.6, 1.0))
    return over(reduced(view), photograph(kit, blurred=kit.chance(0.6)))
