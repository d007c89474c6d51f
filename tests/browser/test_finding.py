"""Somebody who has never read our names finds the nodes, and reads what they do without leaving the canvas."""

from pathlib import Path

import pytest
from canvas import JSON, Canvas
from comfy_server import PACK_NAME, ComfyServer

REPOSITORY = Path(__file__).resolve().parents[2]
WORDS = ("upscale", "allosr2", "super resolution", "restore", "enhance", "denoise", "sharpen")
"""What people type who want a larger or better picture."""


@pytest.fixture(scope="module")
def ours(server: ComfyServer) -> dict[str, JSON]:
    """Node id -> what the front end is told about it; all nodes of this pack."""
    info = server.get("/object_info")
    found = {name: node for name, node in info.items() if node["python_module"] == f"custom_nodes.{PACK_NAME}"}
    assert found
    return found


def test_they_stand_beside_the_hosts_own(server: ComfyServer, ours: dict[str, JSON]) -> None:
    """In the menu for larger pictures, where people look."""
    hosts = server.object_info("ImageUpscaleWithModel")["category"]
    assert {node["category"] for node in ours.values()} == {hosts}


def test_search_finds_the_nodes_by_their_names(canvas: Canvas, ours: dict[str, JSON]) -> None:
    with canvas.search_box():
        for node in ours.values():
            name = node["display_name"]
            results = canvas.search(name, lambda found, name=name: bool(found) and name in found[0])
            assert name in results[0], results
            canvas.shot("search")


def test_search_finds_the_nodes_by_the_words_people_use(canvas: Canvas, ours: dict[str, JSON]) -> None:
    names = [node["display_name"] for node in ours.values()]
    with canvas.search_box():
        for words in WORDS:
            known = {node["display_name"] for node in ours.values() if words in " ".join(searched(node)).lower()}
            results = canvas.search(words, lambda found, known=known: known <= named(found, names))
            assert known <= named(results, names), f"{words}: {results}"
            if words in ("upscale", "restore"):  # in the name of a node, for hosts that search nothing else
                assert named(results, names)
            canvas.shot(f"search_{words}")


def named(results: list[str], names: list[str]) -> set[str]:
    """Which of the names stand in results of a search."""
    return {name for name in names if any(name in result for result in results)}


def searched(node: JSON) -> list[str]:
    """The texts of a node that the front ends' search reads."""
    return [node["name"], node["display_name"], *(node.get("search_aliases") or ())]


def test_tooltips_are_ours(canvas: Canvas, ours: dict[str, JSON]) -> None:
    for kind, node in ours.items():
        canvas.add(kind)
        widgets = {name: options[0] for name, (_, *options) in inputs(node).items() if has_widget(canvas, kind, name)}
        for name in list(widgets)[:2]:
            canvas.hover(kind, name, widgets[name]["tooltip"])
        canvas.shot(f"tooltip_{kind}")


def inputs(node: JSON) -> JSON:
    return {**node["input"].get("required", {}), **node["input"].get("optional", {})}


def has_widget(canvas: Canvas, kind: str, name: str) -> bool:
    code = "([id, name]) => !!window.app.graph.getNodeById(id).widgets?.some(w => w.name === name)"
    return canvas.js(code, [canvas.node_id(kind), name])


def test_help_panels_show_our_pages(canvas: Canvas, ours: dict[str, JSON]) -> None:
    for kind, node in ours.items():
        canvas.add(kind)
        shown = canvas.help_of(kind)
        canvas.shot(f"help_{kind}")
        for name in inputs(node):
            assert name in shown, f"{kind}: {name} is not in the help panel"
