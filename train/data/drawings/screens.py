"""Windows of programs as they look on a screen, drawn, not captured: editors, tables, dialogs, file lists."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw

from .assets import Typeface
from .backgrounds import background
from .icons import icon
from .kit import OVERSAMPLING, Color, Kit, mixed, reduced
from .words import CODE, KEYWORDS, number, phrase, word

Box = tuple[int, int, int, int]


@dataclass
class Screen:
    """One canvas and what all its windows share. `unit`: px of the canvas for one of a screen of usual density."""

    kit: Kit
    canvas: Image.Image
    draw: ImageDraw.ImageDraw
    unit: int
    face: Typeface
    script: str
    paper: Color
    ink: Color
    accent: Color
    icons: list[tuple[tuple[int, int], Image.Image]]
    """Icons and where they go, in px of the finished picture."""

    @property
    def dim(self) -> Color:
        return mixed(self.paper, self.ink, 0.1)

    def text(
        self, x: float, y: float, text: str, color: Color | None = None, size: int = 13, face: Typeface | None = None
    ) -> float:
        """Text whose middle is at the height y; its length."""
        font = (face or self.face).at(size * self.unit)
        self.draw.text((x, y), text, font=font, fill=color or self.ink, anchor="lm")
        return font.getlength(text)

    def icon(self, x: int, y: int, size: int) -> None:
        """An icon of `size` units whose top left corner is at (x, y)."""
        side = size * self.unit // OVERSAMPLING
        self.icons.append(((x // OVERSAMPLING, y // OVERSAMPLING), icon(self.kit, side, self.paper)))


def screen(kit: Kit) -> Image.Image:
    """One window that fills the picture, or two or three over a desktop."""
    light = kit.chance(0.5)
    paper = kit.color(0.06, (0.94, 1)) if light else kit.color(0.2, (0.1, 0.2))
    ink = (35, 35, 38) if light else (222, 222, 224)
    face, script = kit.typeface()
    unit = OVERSAMPLING * kit.pick((1, 1, 2))
    wallpaper = background(kit, 0.6).resize(
        (kit.side * OVERSAMPLING, kit.side * OVERSAMPLING), Image.Resampling.NEAREST
    )
    draw = ImageDraw.Draw(wallpaper)
    desk = Screen(kit, wallpaper, draw, unit, face, script, paper, ink, kit.accent(), [])
    side = wallpaper.width
    result = None
    for _ in range(kit.pick((1, 2, 3))):
        width, height = (_snapped(side * kit.uniform(0.5, 1.0)) for _ in range(2))
        left, top = (_snapped(kit.uniform(-0.05, 1) * (side - extent)) for extent in (width, height))
        window(desk, (left, top, left + width, top + height))
        result = reduced(desk.canvas).convert("RGBA")
        for place, drawn in desk.icons:
            layer = Image.new("RGBA", result.size)
            layer.paste(drawn, place)
            result.alpha_composite(layer)
        desk.icons.clear()
        desk.canvas = result.convert("RGB").resize((side, side), Image.Resampling.NEAREST)
        desk.draw = ImageDraw.Draw(desk.canvas)
    return (result or reduced(desk.canvas)).convert("RGB")


def _snapped(value: float) -> int:
    """Whole pixels of the finished picture: edges of windows are sharp."""
    return round(value / OVERSAMPLING) * OVERSAMPLING


def window(desk: Screen, box: Box) -> None:
    """A frame with a title, at times a menu, and one of the contents."""
    kit, unit, draw = desk.kit, desk.unit, desk.draw
    left, top, right, bottom = box
    bar = 30 * unit
    radius = kit.pick((0, 0, 6, 10)) * unit
    draw.rounded_rectangle(
        (left - unit, top - unit, right + unit - 1, bottom + unit - 1), radius, mixed(desk.paper, desk.ink, 0.35)
    )
    draw.rounded_rectangle((left, top, right - 1, bottom - 1), radius, desk.paper)
    draw.rounded_rectangle((left, top, right - 1, top + bar), radius, desk.dim, corners=(True, True, False, False))
    desk.text(left + 12 * unit, top + bar / 2, phrase(kit, desk.script, 2))
    for k in range(3):
        x, y = right - (22 + 26 * k) * unit, top + bar // 2
        if k == 0:
            for s in (-1, 1):
                draw.line(
                    [(x - 5 * unit, y - 5 * s * unit), (x + 5 * unit, y + 5 * s * unit)], desk.ink, round(1.4 * unit)
                )
        elif k == 1:
            draw.rectangle((x - 5 * unit, y - 5 * unit, x + 5 * unit - 1, y + 5 * unit - 1), None, desk.ink, unit)
        else:
            draw.rectangle((x - 5 * unit, y, x + 5 * unit - 1, y + unit - 1), desk.ink)
    top += bar
    if kit.chance(0.6):
        x = left + 12 * unit
        while x < right - 90 * unit:
            x += desk.text(x, top + 13 * unit, word(kit, desk.script)) + 16 * unit
        top += 26 * unit
        draw.rectangle((left, top - unit, right - 1, top - 1), mixed(desk.paper, desk.ink, 0.25))
    if bottom - top > 60 * unit:
        content = kit.pick((editor, terminal, table, dialog, files, document))
        content(desk, (left, top, right, bottom))


def _monospaced(desk: Screen) -> Typeface:
    """A font whose letters are equally wide, where the split has one; else the interface's."""
    found = [
        face for package in desk.kit.assets.fonts for face in package if face.monospaced and "latin" in face.scripts
    ]
    return desk.kit.pick(found) if found else desk.face


def editor(desk: Screen, box: Box) -> None:
    """Lines of code with numbers, keywords in another colour."""
    kit, unit = desk.kit, desk.unit
    left, top, right, bottom = box
    face, size = _monospaced(desk), kit.integer(11, 15)
    font, step = face.at(size * unit), round(size * 1.4) * unit
    colors = [mixed(kit.accent(), desk.ink, 0.35) for _ in range(3)]
    desk.draw.rectangle((left, top, left + 36 * unit - 1, bottom - 1), desk.dim)
    indent = 0
    for row in range((bottom - top) // step):
        y = top + (row + 0.5) * step
        desk.text(left + 6 * unit, y, f"{row + 1}", mixed(desk.paper, desk.ink, 0.5), size, face)
        indent = max(0, min(indent + kit.pick((-1, 0, 0, 1)), 4))
        x = left + 44 * unit + indent * 4 * font.getlength("0")
        for piece in kit.pick(CODE).strip().split(" "):
            color = colors[0] if piece in KEYWORDS else colors[1] if piece[:1] in "\"'0123456789#" else desk.ink
            if x + font.getlength(piece) > right:
                break
            x += desk.text(x, y, piece, color, size, face) + font.getlength(" ")


def terminal(desk: Screen, box: Box) -> None:
    """Light letters on a dark ground, prompts and listings."""
    kit, unit = desk.kit, desk.unit
    left, top, right, bottom = box
    face, size = _monospaced(desk), kit.integer(11, 16)
    font, step = face.at(size * unit), round(size * 1.3) * unit
    ground, ink = kit.color(0.5, (0, 0.14)), kit.pick(((220, 220, 220), (130, 230, 130), (250, 200, 120)))
    desk.draw.rectangle((left, top, right - 1, bottom - 1), ground)
    for row in range((bottom - top) // step):
        x, y = left + 6 * unit, top + (row + 0.5) * step
        if kit.chance(0.25):
            x += desk.text(x, y, "user@host:~$ ", (110, 190, 240), size, face)
            line = kit.pick(CODE).strip()
        else:
            line = f"-rw-r--r-- {kit.integer(1, 9)} {kit.integer(100, 99999):6} {number(kit):>10} {word(kit, 'latin')}"
        room = int((right - x) / max(font.getlength("0"), 1)) - 1
        desk.text(x, y, line[: max(room, 0)], ink, size, face)


def table(desk: Screen, box: Box) -> None:
    """Rows and columns of words and numbers between fine lines."""
    kit, unit = desk.kit, desk.unit
    left, top, right, bottom = box
    step, columns = kit.integer(20, 30) * unit, kit.integer(3, 7)
    rule, width = mixed(desk.paper, desk.ink, 0.2), (right - left) // columns // OVERSAMPLING * OVERSAMPLING
    marked, banded = kit.integer(1, 12), kit.chance(0.5)
    for row in range((bottom - top) // step):
        y = top + row * step
        fill = desk.dim if row == 0 or (banded and row % 2) else desk.accent if row == marked else desk.paper
        desk.draw.rectangle((left, y, right - 1, y + step - 1), fill)
        for place in range(columns):
            x = left + place * width
            text = word(kit, desk.script) if row == 0 or place == 0 else number(kit)
            if desk.face.at(13 * unit).getlength(text) < width - 8 * unit:
                color = kit.ink_on(desk.accent) if fill == desk.accent else desk.ink
                desk.text(x + 6 * unit, y + step / 2, text, color)
            desk.draw.rectangle((x, y, x + unit - 1, y + step - 1), rule)
        desk.draw.rectangle((left, y + step - unit, right - 1, y + step - 1), rule)


def dialog(desk: Screen, box: Box) -> None:
    """Labels with fields, boxes to tick, sliders and buttons."""
    kit, unit, draw = desk.kit, desk.unit, desk.draw
    left, top, right, bottom = box
    y, rule = top + 24 * unit, mixed(desk.paper, desk.ink, 0.4)
    while y < bottom - 50 * unit:
        x, mode = left + 16 * unit, kit.pick(("field", "tick", "slider", "label"))
        if mode == "tick":
            draw.rounded_rectangle((x, y - 7 * unit, x + 14 * unit, y + 7 * unit), 2 * unit, desk.paper, rule, unit)
            if kit.chance(0.6):
                tick = [(x + 3 * unit, y), (x + 6 * unit, y + 4 * unit), (x + 12 * unit, y - 4 * unit)]
                draw.line(tick, desk.accent, 2 * unit, joint="curve")
            desk.text(x + 22 * unit, y, phrase(kit, desk.script, 2))
        else:
            x += desk.text(x, y, phrase(kit, desk.script, 1)) + 14 * unit
            end = min(x + kit.integer(80, 240) * unit, right - 16 * unit)
            if mode == "field" and end > x + 60 * unit:
                draw.rounded_rectangle((x, y - 12 * unit, end, y + 12 * unit), 3 * unit, desk.paper, rule, unit)
                if end - x > 100 * unit:
                    desk.text(x + 6 * unit, y, number(kit))
            elif mode == "slider" and end > x + 60 * unit:
                draw.rectangle((x, y - unit, end, y + unit - 1), rule)
                draw.circle(((x + end) // 2, y), 7 * unit, desk.accent)
        y += kit.integer(30, 40) * unit
    x = right - 16 * unit
    for k in range(2):
        text = word(kit, desk.script)
        width = round(desk.face.at(13 * unit).getlength(text)) + 32 * unit
        fill = desk.accent if k == 0 else desk.dim
        draw.rounded_rectangle((x - width, bottom - 42 * unit, x, bottom - 14 * unit), 4 * unit, fill, rule, unit)
        desk.text(x - width + 16 * unit, bottom - 28 * unit, text, kit.ink_on(fill))
        x -= width + 10 * unit


def files(desk: Screen, box: Box) -> None:
    """A list of places beside icons with names."""
    kit, unit = desk.kit, desk.unit
    left, top, right, bottom = box
    bar = left + 120 * unit
    desk.draw.rectangle((left, top, bar - 1, bottom - 1), desk.dim)
    for row in range((bottom - top) // (26 * unit)):
        desk.icon(left + 8 * unit, top + (26 * row + 5) * unit, 16)
        desk.text(left + 32 * unit, top + (26 * row + 13) * unit, word(kit, desk.script)[:9])
    cell, size = 92 * unit, kit.pick((32, 48))
    for row in range((bottom - top) // cell):
        for place in range((right - bar) // cell):
            x, y = bar + place * cell, top + row * cell
            desk.icon(x + (cell - size * unit) // 2, y + 12 * unit, size)
            font = desk.face.at(12 * unit)
            desk.draw.text((x + cell // 2, y + 76 * unit), word(kit, desk.script)[:11], desk.ink, font, anchor="mm")


def document(desk: Screen, box: Box) -> None:
    """Running text with headings and links."""
    kit, unit = desk.kit, desk.unit
    left, top, right, bottom = box
    y = top + 20 * unit
    while y < bottom - 20 * unit:
        size = kit.pick((13, 13, 13, 13, 15, 20))
        font, text = desk.face.at(size * unit), ""
        joint = " " if " " in phrase(kit, desk.script, 2) else ""
        for _ in range(40):
            longer = f"{text}{joint}{phrase(kit, desk.script, 1)}" if text else phrase(kit, desk.script, 1)
            if font.getlength(longer) > right - left - 32 * unit:
                break
            text = longer
        desk.text(left + 16 * unit, y, text, desk.accent if kit.chance(0.1) else desk.ink, size)
        y += round(size * 1.6) * unit
