"""Every example workflow opens as it should, and leaves the page as it came."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from canvas import JSON, Canvas
from comfy_server import PACK_NAME, ComfyServer

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "example_workflows"
TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Opened:
    """A template's files, and what the page made of it."""

    file: JSON
    twin: JSON
    graph: JSON
    prompt: JSON
    text: str
    errors: list[str]


@pytest.fixture(scope="module", params=TEMPLATES)
def template(canvas: Canvas, request: pytest.FixtureRequest) -> Opened:
    """Opened in the template browser."""
    name = request.param
    canvas.errors()
    canvas.open_template(name)
    canvas.shot(f"template_{name}", fit=True)
    return Opened(
        file=json.loads((FOLDER / f"{name}.json").read_text()),
        twin=json.loads((FOLDER / "api" / f"{name}.json").read_text()),
        graph=canvas.graph(),
        prompt=canvas.prompt(),
        text=canvas.text(),
        errors=canvas.errors(),
    )


def test_opens_with_nothing_missing(template: Opened, server: ComfyServer) -> None:
    assert not template.errors
    info = server.get("/object_info")
    for node in template.prompt.values():
        schema = info[node["class_type"]]
        for name, picture in named_pictures(schema, node["inputs"]):
            assert (server.input / picture).is_file(), f"{name} names {picture}, which a new ComfyUI lacks"


def named_pictures(schema: JSON, values: JSON) -> list[tuple[str, str]]:
    """The inputs that name a file of the input folder."""
    uploads = [name for name, (_, *options) in inputs(schema).items() if options and options[0].get("image_upload")]
    return [(name, values[name]) for name in uploads]


def test_nothing_is_said_to_be_missing(template: Opened) -> None:
    for words in ("Missing Node", "Missing node", "input missing"):
        assert words not in template.text


def test_comes_back_as_it_went_in(template: Opened) -> None:
    assert what_matters(template.graph) == what_matters(template.file)


def what_matters(workflow: JSON) -> JSON:
    """A workflow without what the page may choose: places to the pixel, the order of drawing, ids of its own."""
    nodes = {
        node["id"]: {
            "type": node["type"],
            "title": node.get("title", node["type"]),
            "mode": node["mode"],
            "values": node.get("widgets_values") or [],
            "linked": [socket["name"] for socket in node.get("inputs", ()) if socket.get("link") is not None],
        }
        for node in workflow["nodes"]
    }
    return {"nodes": nodes, "links": sorted(workflow["links"])}


def test_runs_what_its_api_twin_runs(template: Opened, server: ComfyServer) -> None:
    info = server.get("/object_info")
    assert by_class(template.prompt, info) == by_class(template.twin, info)


def by_class(prompt: JSON, info: JSON) -> list[tuple[str, dict[str, Any]]]:
    """The nodes of a prompt by class, with the inputs that the server knows (the page adds widgets of its own to some).

    A link names the class it comes from instead of a node's id.
    """

    def value(given: Any) -> Any:  # noqa: ANN401 - JSON
        return [prompt[given[0]]["class_type"], given[1]] if isinstance(given, list) else given

    nodes = []
    for node in prompt.values():
        known = inputs(info[node["class_type"]])
        nodes.append((node["class_type"], {k: value(v) for k, v in node["inputs"].items() if k in known}))
    return sorted(nodes, key=str)


def inputs(schema: JSON) -> JSON:
    return {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}


def test_the_template_browser_shows_a_picture_of_each(canvas: Canvas, server: ComfyServer) -> None:
    canvas.browse_templates()
    for name in TEMPLATES:
        canvas.page.get_by_test_id(f"template-workflow-{name}").wait_for()
        assert server.request("GET", f"/api/workflow_templates/{PACK_NAME}/{name}.jpg")[0] == 200
    canvas.shot("template_browser")
