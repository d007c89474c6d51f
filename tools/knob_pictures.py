"""The strips of the help pages and of README that show what a knob does: web/docs/knobs/*.jpg.

    python tools/knob_pictures.py

Everything on them is the embedded checkpoint's, in fp32, on photographs of this repository (CREDITS.md).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint  # noqa: E402
from allosr2_core.flow import t_from_rho  # noqa: E402
from allosr2_core.image.opening import open_picture, pillow_picture  # noqa: E402
from allosr2_core.options import UpscaleOptions  # noqa: E402
from allosr2_core.pipeline import Pipeline, encode, prepare  # noqa: E402
from allosr2_core.start_time import estimate_t  # noqa: E402

TARGET = REPOSITORY / "web" / "docs" / "knobs"
SIDE = 260
"""px of the result that each picture of a strip shows."""
LABEL = 24  # px
GAP = 4  # px
SCALE = 4


class Networks:
    """The embedded checkpoint's networks, built once for each strength."""

    def __init__(self) -> None:
        self._checkpoint = load_checkpoint(embedded_path())
        self._built: dict[float, Pipeline] = {}

    def __getitem__(self, strength: float) -> Pipeline:
        if strength not in self._built:
            self._built[strength] = Pipeline.from_checkpoint(self._checkpoint, strength)
        return self._built[strength]


Make = Callable[[Tensor, Networks], Tensor]
"""The low-resolution picture [1, h, w, 3] -> one picture of a strip as a whole, [SCALE h, SCALE w, 3] in 0..1."""


def result(strength: float = 1.0, **options: object) -> Make:
    """What `Pipeline.upscale` makes of it."""
    return lambda image, networks: networks[strength].upscale(image, UpscaleOptions(**options))[0]


def masked(image: Tensor, networks: Networks) -> Tensor:
    """What it makes of it where `drawn_mask` is white."""
    return networks[1.0].upscale(image, mask=drawn_mask(image))[0]


def drawn_mask(image: Tensor) -> Tensor:
    """A soft white disc on black, [1, h, w]: on the left eye of the cat."""
    rows, columns = (torch.arange(side) for side in image.shape[1:3])
    distance = (rows[:, None] - 56).square().add((columns[None] - 101).square()).sqrt()
    return ((24.0 - distance) / 6.0).clamp(0.0, 1.0)[None]


def mask_alone(image: Tensor, networks: Networks) -> Tensor:
    """The mask as a picture."""
    return enlarged(drawn_mask(image)[0])


def local_times(image: Tensor, networks: Networks) -> Tensor:
    """What SNR Timestep Estimate gives as `map`: local t*, white is the greatest the checkpoint knows."""
    pipeline = networks[1.0]
    config, target = pipeline.config, prepare(image, pipeline.config, scale=pipeline.config.scale)
    z_lr = encode(pipeline.backend, config, target.layout, target.window())
    local = estimate_t(z_lr, config, pipeline.head, "predicted").map[0]
    return enlarged((t_from_rho(local) / config.t_max).clamp(0.0, 1.0), config.latent_downscale)


def enlarged(grey: Tensor, factor: int = SCALE) -> Tensor:
    """A grey map [h, w] -> a picture [factor h, factor w, 3]."""
    size = tuple(factor * side for side in grey.shape)
    return functional.interpolate(grey[None, None], size=size, mode="bilinear")[0].movedim(0, -1).expand(-1, -1, 3)


@dataclass(frozen=True)
class Strip:
    """One photograph, the same part of it at several values of a knob."""

    name: str
    photo: str
    corner: tuple[int, int]
    """Left and top of the part, px of the low-resolution picture."""
    pictures: dict[str, Make]
    """By label, from left to right."""
    size: int | None = None
    """Side, px, that a large photograph is reduced to before it is damaged as JPEG of quality 60; None = as it is."""


STRIPS = (
    Strip(
        name="realism",
        photo="demo/input.jpg",
        corner=(68, 26),
        pictures={f"realism {value:g}": result(realism=value) for value in (0.0, 0.5, 1.0, 1.5)},
    ),
    Strip(
        name="t",
        photo="tests/photos/citrus-fruits.jpg",
        corner=(40, 50),
        pictures={
            "t 0.05": result(t=0.05),
            "t 0.15": result(t=0.15),
            "predicted": result(),
            "t 0.45": result(t=0.45),
        },
        size=144,
    ),
    Strip(
        name="strength",
        photo="demo/input.jpg",
        corner=(68, 26),
        pictures={"enlarged": result(realism=0.0)}
        | {f"strength {value:g}": result(strength=value) for value in (0.0, 0.5, 1.0)},
    ),
    Strip(
        name="mask",
        photo="demo/input.jpg",
        corner=(68, 26),
        pictures={"without a mask": result(), "mask": mask_alone, "with it": masked},
    ),
    Strip(
        name="map",
        photo="demo/input.jpg",
        corner=(60, 14),
        pictures={"input, enlarged": result(realism=0.0), "map": local_times, "result": result()},
    ),
)


def low_resolution(strip: Strip) -> Image.Image:
    """The picture that goes in."""
    with open_picture(REPOSITORY / strip.photo) as opened:
        photo = opened.convert("RGB")
    if strip.size is None:
        return photo
    reduced = photo.resize((strip.size, strip.size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    reduced.save(buffer, "JPEG", quality=60)
    with pillow_picture(buffer, Path(strip.photo)) as damaged:
        return damaged.convert("RGB")


def draw(strip: Strip, networks: Networks) -> Image.Image:
    """The strip, a label above each picture."""
    image = torch.from_numpy(np.asarray(low_resolution(strip)).copy())[None].float() / 255.0
    left, top = (SCALE * side for side in strip.corner)
    canvas = Image.new("RGB", (len(strip.pictures) * (SIDE + GAP) - GAP, SIDE + LABEL), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for number, (label, make) in enumerate(strip.pictures.items()):
        part = make(image, networks)[top : top + SIDE, left : left + SIDE]
        x = number * (SIDE + GAP)
        canvas.paste(Image.fromarray((part * 255.0).round().byte().numpy()), (x, LABEL))
        pen.text((x + 2, 3), label, fill="black", font=font)
    return canvas


def main() -> None:
    """Draw all strips."""
    networks = Networks()
    TARGET.mkdir(parents=True, exist_ok=True)
    for strip in STRIPS:
        draw(strip, networks).save(TARGET / f"{strip.name}.jpg", quality=85)


if __name__ == "__main__":
    main()
