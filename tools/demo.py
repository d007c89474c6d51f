"""`make demo`: a photograph through a real, headless ComfyUI and the four nodes.

Takes demo/input.* through example_workflows/api/allosr2_upscale.json and writes demo/output.png (exactly four times as
large) and demo/compare.png (the input enlarged bicubically | the output).

    python tools/demo.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import comfyui
from comfy_server import REPOSITORY, ComfyServer, ServerError, WorkflowError
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(REPOSITORY))
from allosr2_core.errors import AlloSR2Error  # noqa: E402
from allosr2_core.image.opening import open_picture  # noqa: E402

DEMO = REPOSITORY / "demo"
WORKFLOW = REPOSITORY / "example_workflows" / "api" / "allosr2_upscale.json"
SCALE = 4
THUMBNAIL_SIDE = 512  # px
LABEL_HEIGHT = 28  # px
GAP = 8  # px between the two pictures


class DemoError(RuntimeError):
    """The demo's input or result is not what it should be."""


def find_input(folder: Path) -> Path:
    """The one file named input.* in `folder`."""
    found = sorted(folder.glob("input.*"))
    if len(found) != 1:
        raise DemoError(f"expected one file {folder}/input.*, found {[file.name for file in found] or 'none'}")
    return found[0]


def demo_workflow(image_name: str) -> dict[str, dict]:
    """The example workflow with its LoadImage node set to `image_name`."""
    workflow = json.loads(WORKFLOW.read_text())
    loaders = [node for node in workflow.values() if node["class_type"] == "LoadImage"]
    if len(loaders) != 1:
        raise DemoError(f"expected one LoadImage node in {WORKFLOW.name}, found {len(loaders)}")
    loaders[0]["inputs"]["image"] = image_name
    return workflow


def compare(before: Image.Image, after: Image.Image) -> Image.Image:
    """Input enlarged bicubically | output, each with a label above it."""
    left = before.convert("RGB").resize(after.size, Image.Resampling.BICUBIC)
    width, height = after.size
    canvas = Image.new("RGB", (2 * width + GAP, height + LABEL_HEIGHT), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    labels = (f"input {before.width} x {before.height}, bicubic x{SCALE}", f"AlloSR2 {width} x {height}")
    for x, label, picture in zip((0, width + GAP), labels, (left, after.convert("RGB")), strict=True):
        draw.text((x + 6, 5), label, fill="black", font=font)
        canvas.paste(picture, (x, LABEL_HEIGHT))
    return canvas


def thumbnail(before: Image.Image, after: Image.Image) -> Image.Image:
    """A square from the middle of the result, whose left half is the input enlarged bicubically."""
    left = before.convert("RGB").resize(after.size, Image.Resampling.BICUBIC)
    side = min(THUMBNAIL_SIDE, *after.size)
    x, y = (after.width - side) // 2, (after.height - side) // 2
    square = after.convert("RGB").crop((x, y, x + side, y + side))
    square.paste(left.crop((x, y, x + side // 2, y + side)), (0, 0))
    ImageDraw.Draw(square).line([(side // 2, 0), (side // 2, side)], fill="white", width=2)
    return square


def run() -> str:
    """Run the demo; returns the line to print."""
    source = find_input(DEMO)
    root = comfyui.fetch()
    with ComfyServer(root, DEMO / ".work") as server:
        shutil.copy2(source, server.input / source.name)
        start = time.monotonic()
        result = server.run(demo_workflow(source.name))
        seconds, peak = time.monotonic() - start, server.peak_memory()
        if len(result.images) != 1:
            raise DemoError(f"expected one picture from the workflow, got {len(result.images)}")
        with open_picture(source) as before, open_picture(result.images[0]) as after:
            expected = (before.width * SCALE, before.height * SCALE)
            if after.size != expected:
                raise DemoError(f"expected a result of {expected}, got {after.size}")
            compare(before, after).save(DEMO / "compare.png")
        shutil.copyfile(result.images[0], DEMO / "output.png")
    width, height = expected
    return f"demo/output.png {width}x{height} in {seconds:.1f} s, peak memory of the server {peak / 2**20:.0f} MiB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        sys.stdout.write(run() + "\n")
    except (AlloSR2Error, DemoError, ServerError, WorkflowError, comfyui.FetchError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
