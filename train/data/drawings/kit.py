"""What one picture is drawn with: its random numbers, its assets, colours that can be told apart."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from .assets import Assets, Typeface

OVERSAMPLING = 4
"""Lines and letters are drawn this many times larger; the mean over squares of this side is their exact edge."""
T = TypeVar("T")
Color = tuple[int, int, int]


class Kit:
    """Random choices and assets of one picture. Every choice uses up the same stream, so a seed gives one picture.

    side: width and height of the finished picture, px. held_out: draws words and shapes that training never sees.
    """

    def __init__(self, seed: int, assets: Assets, side: int, held_out: bool = False) -> None:
        self._random = np.random.default_rng(seed)
        self.assets, self.side, self.held_out = assets, side, held_out

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._random.random())

    def log_uniform(self, low: float, high: float) -> float:
        return low * (high / low) ** self.uniform(0, 1)

    def integer(self, low: int, high: int) -> int:
        """Including both ends."""
        return min(int(self.uniform(low, high + 1)), high)

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def noise(self, *shape: int) -> np.ndarray:
        """Standard normal, float64."""
        return self._random.standard_normal(shape)

    def typeface(self, script: str | None = None) -> tuple[Typeface, str]:
        """A font and a script it has; other scripts than Latin come up more often than fonts have them."""
        wanted = script or self.pick(
            ("latin",) * 4 + ("accented",) * 2 + ("cyrillic", "greek", "hebrew", "thai", "japanese", "chinese")
        )
        packages = [[face for face in package if wanted in face.scripts] for package in self.assets.fonts]
        packages = [package for package in packages if package]
        if not packages:
            wanted = self.assets.fonts[0][0].scripts[0]
            packages = [[face for face in self.assets.fonts[0] if wanted in face.scripts]]
        return self.pick(self.pick(packages)), wanted

    def color(self, saturation: float = 1.0, value: tuple[float, float] = (0.0, 1.0)) -> Color:
        """A colour of any hue; saturations are mostly low, as paint and print are."""
        chroma = saturation * self.uniform(0, 1) ** 1.5
        red, green, blue = colorsys.hsv_to_rgb(self.uniform(0, 1), chroma, self.uniform(*value))
        return round(255 * red), round(255 * green), round(255 * blue)

    def paper_and_ink(self, dark: float = 0.4) -> tuple[Color, Color]:
        """Two colours that are far apart in brightness; with probability `dark` the ink is the lighter one."""
        if self.chance(0.25):
            pair = ((255, 255, 255), (0, 0, 0)) if self.chance(0.6) else (self.color(0.1, (0.9, 1)), (25, 25, 28))
        else:
            paper = self.color(0.5, (0.75, 1.0))
            pair = paper, self.ink_on(paper)
        return (pair[1], pair[0]) if self.chance(dark) else pair

    def ink_on(self, paper: Color) -> Color:
        """A colour that can be read on another one: their lumas differ by 90 levels at least."""
        for _ in range(50):
            ink = self.color(1.0)
            if abs(luma(ink) - luma(paper)) > 90:
                return ink
        return (0, 0, 0) if luma(paper) > 127 else (255, 255, 255)

    def accent(self) -> Color:
        """A saturated colour, as of charts and signs."""
        red, green, blue = colorsys.hsv_to_rgb(self.uniform(0, 1), self.uniform(0.55, 1), self.uniform(0.5, 0.95))
        return round(255 * red), round(255 * green), round(255 * blue)


def luma(color: Color) -> float:
    """Brightness of an RGB colour, 0 to 255 (ITU-R BT.601)."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def mean_color(picture: Image.Image) -> Color:
    """The mean of an RGB picture."""
    red, green, blue = (round(float(v)) for v in np.asarray(picture).reshape(-1, 3).mean(0))
    return red, green, blue


def mixed(a: Color, b: Color, share: float) -> Color:
    """`share` of b in a."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def sheet(side: int, color: Color | tuple[int, int, int, int] = (0, 0, 0, 0)) -> Image.Image:
    """An oversampled canvas for a picture of `side` px; transparent without a colour."""
    return Image.new("RGB" if len(color) == 3 else "RGBA", (OVERSAMPLING * side, OVERSAMPLING * side), color)


def reduced(canvas: Image.Image) -> Image.Image:
    """The picture that an oversampled canvas stands for: means over squares, premultiplied where it is transparent."""
    if canvas.mode == "RGBA":
        return canvas.convert("RGBa").reduce(OVERSAMPLING).convert("RGBA")
    return canvas.reduce(OVERSAMPLING)


def over(layer: Image.Image, background: Image.Image) -> Image.Image:
    """A transparent layer on a background of its size, RGB."""
    result = background.convert("RGBA")
    result.alpha_composite(layer)
    return result.convert("RGB")
