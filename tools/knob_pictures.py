"""The strips of the help pages and of README that show what a knob does: web/docs/knobs/*.jpg.

    python tools/knob_pictures.py

Everything on them is the embedded checkpoint's, in fp32, on photographs of this repository (CREDITS.md).
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint  # noqa: E402
from allosr2_core.options import UpscaleOptions  # noqa: E402
from allosr2_core.pipeline import Pipeline  # noqa: E402

TARGET = REPOSITORY / "web" / "docs" / "knobs"
SIDE = 260
"""px of the result that each picture of a strip shows."""
LABEL = 24  # px
GAP = 4  # px
SCALE = 4


@dataclass(frozen=True)
class Strip:
    """One photograph, the same part of it at several values of a knob."""

    name: str
    photo: str
    corner: tuple[int, int]
    """Left and top of the part, px of the low-resolution picture."""
    settings: dict[str, UpscaleOptions]
    """By label, from left to right."""
    size: int | None = None
    """Side, px, that a large photograph is reduced to before it is damaged as JPEG of quality 60; None = as it is."""


STRIPS = (
    Strip(
        name="realism",
        photo="demo/input.jpg",
        corner=(68, 26),
        settings={f"realism {value:g}": UpscaleOptions(realism=value) for value in (0.0, 0.5, 1.0, 1.5)},
    ),
    Strip(
        name="t",
        photo="tests/photos/citrus-fruits.jpg",
        corner=(40, 50),
        settings={
            "t 0.05": UpscaleOptions(t=0.05),
            "t 0.15": UpscaleOptions(t=0.15),
            "predicted": UpscaleOptions(),
            "t 0.45": UpscaleOptions(t=0.45),
        },
        size=144,
    ),
)


def low_resolution(strip: Strip) -> Image.Image:
    """The picture that goes in."""
    photo = Image.open(REPOSITORY / strip.photo).convert("RGB")
    if strip.size is None:
        return photo
    reduced = photo.resize((strip.size, strip.size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    reduced.save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


def draw(strip: Strip, pipeline: Pipeline) -> Image.Image:
    """The strip, a label above each picture."""
    image = torch.from_numpy(np.asarray(low_resolution(strip)).copy())[None].float() / 255.0
    left, top = (SCALE * side for side in strip.corner)
    canvas = Image.new("RGB", (len(strip.settings) * (SIDE + GAP) - GAP, SIDE + LABEL), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for number, (label, options) in enumerate(strip.settings.items()):
        result = pipeline.upscale(image, options)[0, top : top + SIDE, left : left + SIDE]
        x = number * (SIDE + GAP)
        canvas.paste(Image.fromarray((result * 255.0).round().byte().numpy()), (x, LABEL))
        pen.text((x + 2, 3), label, fill="black", font=font)
    return canvas


def main() -> None:
    """Draw all strips."""
    pipeline = Pipeline.from_checkpoint(load_checkpoint(embedded_path()))
    TARGET.mkdir(parents=True, exist_ok=True)
    for strip in STRIPS:
        draw(strip, pipeline).save(TARGET / f"{strip.name}.jpg", quality=85)


if __name__ == "__main__":
    main()
