"""The pictures in the template browser: real results of the templates on the demo's photograph."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from comfy_server import JSON, ComfyServer, WorkflowResult
from PIL import Image

from demo import DEMO, find_input, open_picture, thumbnail

if TYPE_CHECKING:
    from template_list import Template

SIDE = 512
"""px of a thumbnail."""
FRAMES = 6
"""Of the video."""


def write_thumbnails(server: ComfyServer, templates: Sequence[Template], folder: Path) -> None:
    """Run each template that has something to run on, and write folder/NAME.jpg."""
    source = _opened(find_input(DEMO))
    for template in templates:
        workflow = json.loads((folder / "api" / f"{template.name}.json").read_text(encoding="utf-8"))
        if "UNETLoader" in kinds(workflow):
            continue  # no such weights here: its picture was made where there were some
        before = place_inputs(workflow, source, server.input)
        picture = _picture(template.name, before, server.run(workflow))
        picture.convert("RGB").save(folder / f"{template.name}.jpg", quality=88)


def kinds(workflow: JSON) -> set[str]:
    """The classes of a workflow's nodes."""
    return {node["class_type"] for node in workflow.values()}


def place_inputs(workflow: JSON, source: Image.Image, folder: Path) -> Image.Image:
    """Put what a workflow (API form) loads into ComfyUI's input folder, and name it there; returns the picture.

    A picture, a folder of its four quarters, or a video that moves over it.
    """
    for node in workflow.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "LoadImage":
            if "JoinImageWithAlpha" in kinds(workflow):
                source = with_transparency(source)
            inputs["image"] = "template.png"
            source.save(folder / inputs["image"])
        elif kind == "LoadImageDataSetFromFolder":
            (folder / inputs["folder"]).mkdir(exist_ok=True)
            for number, quarter in enumerate(quarters(source)):
                quarter.save(folder / inputs["folder"] / f"{number}.png")
        elif kind == "LoadVideo":
            source = write_video(source, folder / inputs["file"])
        elif kind == "MaskComposite":
            inputs["x"] = source.width // 2
    return source


def with_transparency(picture: Image.Image) -> Image.Image:
    """The picture inside an ellipse, RGBA."""
    rows, columns = np.mgrid[-1 : 1 : picture.height * 1j, -1 : 1 : picture.width * 1j]
    alpha = np.clip((1.0 - np.hypot(rows, columns)) * 20.0 + 1.0, 0.0, 1.0)
    return Image.fromarray(np.dstack([np.asarray(picture), np.uint8(alpha * 255.0)]))


def quarters(picture: Image.Image) -> list[Image.Image]:
    """Left and right of the upper and the lower half."""
    width, height = picture.width // 2, picture.height // 2
    places = [(x, y) for y in (0, height) for x in (0, width)]
    return [picture.crop((x, y, x + width, y + height)) for x, y in places]


def write_video(picture: Image.Image, path: Path) -> Image.Image:
    """A short clip that moves over a picture; its first frame."""
    width, height = (side // 2 * 2 - 4 * FRAMES for side in picture.size)
    frames = [picture.crop((2 * n, 2 * n, 2 * n + width, 2 * n + height)) for n in range(FRAMES)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 8_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))
    return frames[0]


def _opened(path: Path) -> Image.Image:
    with open_picture(path) as picture:
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _picture(name: str, before: Image.Image, result: WorkflowResult) -> Image.Image:
    """What shows best what a template does."""
    saved = [path for path in result.images if path.parent.name != "temp"]
    if name.endswith("video"):
        with av.open(str(saved[0])) as container:
            return _square(thumbnail(before, next(container.decode(video=0)).to_image()))
    pictures = [_opened(path) for path in saved]
    if name.endswith("folder"):
        return _grid(pictures)
    if name.endswith("mask"):
        return _square(pictures[0])
    if name.endswith("transparent"):
        return _square(_on_checks(_reduced(pictures[0])))
    return thumbnail(before, _reduced(pictures[0]))


def _square(picture: Image.Image) -> Image.Image:
    side = min(SIDE, *picture.size)
    x, y = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((x, y, x + side, y + side))


def _reduced(picture: Image.Image) -> Image.Image:
    """A large result, or one whose outline counts, with its shorter side as large as two thumbnails or one."""
    side = SIDE if picture.mode == "RGBA" else min(2 * SIDE, *picture.size)
    width, height = (size * side // min(picture.size) for size in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _grid(pictures: Sequence[Image.Image]) -> Image.Image:
    grid, half = Image.new("RGB", (SIDE, SIDE), "white"), SIDE // 2 - 2
    for number, picture in enumerate(pictures[:4]):
        side = min(picture.size)
        small = picture.convert("RGB").crop((0, 0, side, side)).resize((half, half), Image.Resampling.LANCZOS)
        grid.paste(small, (number % 2 * (SIDE - half), number // 2 * (SIDE - half)))
    return grid


def _on_checks(picture: Image.Image) -> Image.Image:
    rows, columns = np.mgrid[0 : picture.height, 0 : picture.width] // 16
    grey = np.uint8(200 + 40 * ((rows + columns) % 2))
    checks = Image.fromarray(np.dstack([grey] * 3)).convert("RGBA")
    return Image.alpha_composite(checks, picture.convert("RGBA"))
