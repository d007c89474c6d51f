"""A workflow comes from a file, runs, shows its picture, says what is wrong with it, and ends when it is told to."""

import json
import time
from pathlib import Path

import pytest
from canvas import Canvas
from comfy_server import ComfyServer
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATES = REPOSITORY / "example_workflows"
NODE = "AlloSR2Upscale"


def dropped(canvas: Canvas, template: str) -> Canvas:
    """A template, dropped on the canvas as a file, with a small photograph."""
    path = TEMPLATES / f"{template}.json"
    canvas.drop(path)
    canvas.wait_for_nodes(len(json.loads(path.read_text())["nodes"]))
    canvas.set_widget("LoadImage", "image", "photo.png")
    canvas.fit()
    return canvas


@pytest.fixture
def quick(canvas: Canvas) -> Canvas:
    """The template for one picture."""
    return dropped(canvas, "allosr2_quick")


def written(server: ComfyServer) -> list[Path]:
    return sorted(server.output.glob("*.png"), key=lambda path: path.stat().st_mtime)


def test_run_shows_a_picture_and_the_picture_brings_the_workflow_back(quick: Canvas, server: ComfyServer) -> None:
    before = len(written(server))
    quick.run()
    quick.wait_for_picture("SaveImage")
    quick.shot("result", fit=True)
    results = written(server)
    assert len(results) == before + 1
    with Image.open(results[-1]) as result:
        assert result.size == (960, 640)
    saved = quick.prompt()
    nodes = len(quick.graph()["nodes"])
    quick.clear()
    quick.drop(results[-1])
    quick.wait_for_nodes(nodes)
    assert quick.prompt() == saved


@pytest.mark.parametrize(
    ("template", "kind", "widget", "value", "words"),
    [
        ("allosr2_quick", NODE, "checkpoint", "absent.safetensors", "got 'absent.safetensors'"),
        ("allosr2_upscale", "SNRTimestepEstimate", "method", "paired", "expected an image on hr_reference"),
    ],
    ids=["checkpoint", "method"],
)
def test_a_wrong_value_is_answered_with_a_sentence(
    canvas: Canvas, template: str, kind: str, widget: str, value: str, words: str
) -> None:
    """Also where another output of the workflow can be made, and the host would run that without a word."""
    dropped(canvas, template)
    canvas.set_widget(kind, widget, value)
    canvas.run()
    canvas.wait_for_words(words)
    canvas.shot(f"wrong_{widget}")
    canvas.wait_until_idle()
    canvas.errors()  # the page logs the refusal, too


def test_cancel_ends_a_large_picture_at_once(quick: Canvas, server: ComfyServer) -> None:
    """Within 2 s, or, on a machine that is busy with other things, within the time of four small pictures."""
    start = time.monotonic()
    server.run(quick.prompt())
    small = time.monotonic() - start
    quick.set_widget("LoadImage", "image", "large.png")
    quick.run()
    quick.wait_until_busy()
    quick.page.wait_for_timeout(1500)  # ms; into the tiles
    quick.shot("running")
    seconds = quick.cancel()
    assert not quick.shows_picture("SaveImage"), "the picture was finished before it could be cancelled"
    assert seconds < max(2.0, 4 * small)
