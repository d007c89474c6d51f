"""The example workflows in all their forms, from `template_list.py`: `python tools/templates.py`.

Asks a real ComfyUI what inputs its nodes have, and writes for each template example_workflows/NAME.json (the canvas)
and example_workflows/api/NAME.json (what it runs), and the nodes as a subgraph in subgraphs/. With --check it only says
which files differ, and its exit code is 1 then. With --thumbnails it also runs those that have a picture to run on and
writes NAME.jpg.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfyui
from comfy_server import JSON, REPOSITORY, ComfyServer
from template_list import BLUEPRINT, OUTSIDE, TEMPLATES, Blueprint, Node, Output, Template
from template_pictures import write_thumbnails

FOLDER = REPOSITORY / "example_workflows"
SUBGRAPHS = REPOSITORY / "subgraphs"
_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
_UPLOADS = {"LoadImage": "image", "LoadVideo": "file"}
"""Nodes to which the front end adds a button for choosing a file, and the input that gets the file."""
Schemas = Callable[[str], JSON]
"""A node's schema, by its class."""


def inputs_of(schema: JSON) -> dict[str, tuple[Any, JSON, bool]]:
    """Name -> type, options and whether it is optional, in the schema's order."""
    found = {}
    for kind in ("required", "optional"):
        for name, (type_, *options) in schema["input"].get(kind, {}).items():
            found[name] = (type_, options[0] if options else {}, kind == "optional")
    return found


def is_widget(type_: Any, options: JSON) -> bool:
    """Whether the canvas shows an input as a field on the node."""
    return (isinstance(type_, list) or type_ in _WIDGETS) and not options.get("forceInput")


def value_of(node: Node, name: str, schema: JSON) -> Any:
    """What a widget shows: what the template says, else the node's default."""
    given = node.inputs.get(name)
    if given is not None and not isinstance(given, Output):
        return given
    type_, options, _ = inputs_of(schema)[name]
    choices = type_ if isinstance(type_, list) else options.get("options", [None])
    return options.get("default", choices[0] if choices else None)


def prompt(template: Template, schemas: Schemas) -> JSON:
    """The API form: every node with its links and constants."""
    nodes = {}
    for number, node in template.nodes.items():
        schema, inputs = schemas(node.kind), {}
        for name, (type_, options, _) in inputs_of(schema).items():
            given = node.inputs.get(name)
            if isinstance(given, Output):
                inputs[name] = [str(given.node), given.number]
            elif is_widget(type_, options):
                inputs[name] = value_of(node, name, schema)
        title = node.title or schema["display_name"]
        nodes[str(number)] = {"class_type": node.kind, "inputs": inputs, "_meta": {"title": title}}
    return nodes


class Canvas:
    """Nodes and links as the front end saves them."""

    def __init__(self, nodes: dict[int, Node], schemas: Schemas) -> None:
        self.links: list[tuple[int, int, int, int, int, str]] = []
        """(number, node, its output, node, its input, type)."""
        schema_of = {number: schemas(node.kind) for number, node in nodes.items()}
        slots = {number: _slots(schema_of[number], node) for number, node in nodes.items()}
        for number, node in nodes.items():
            for place, slot in enumerate(slots[number]):
                source = node.inputs.get(slot["name"])
                if isinstance(source, Output) and source.node in nodes:
                    type_ = schema_of[source.node]["output"][source.number]
                    slot["link"] = len(self.links) + 1
                    self.links.append((slot["link"], source.node, source.number, number, place, type_))
        self.nodes = [
            self._node(order, number, node, slots[number], schema_of[number])
            for order, (number, node) in enumerate(nodes.items())
        ]

    def _node(self, order: int, number: int, node: Node, slots: list[JSON], schema: JSON) -> JSON:
        outputs = []
        for place, (name, type_) in enumerate(zip(schema["output_name"], schema["output"], strict=True)):
            links = [link[0] for link in self.links if link[1:3] == (number, place)]
            outputs.append({"name": name, "type": type_, "links": links})
        values = []
        for name, (type_, options, _) in inputs_of(schema).items():
            if is_widget(type_, options):
                values.append(value_of(node, name, schema))
                if _UPLOADS.get(node.kind) == name:
                    values.append("image")
        return {
            "id": number,
            "type": node.kind,
            "pos": list(node.pos),
            "size": list(node.size),
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": slots,
            "outputs": outputs,
            "properties": {"Node name for S&R": node.kind},
            "widgets_values": values,
            **({"title": node.title} if node.title else {}),
        }


def _slots(schema: JSON, node: Node) -> list[JSON]:
    """The inputs of a node: sockets first, then the fields."""
    sockets, fields = [], []
    for name, (type_, options, optional) in inputs_of(schema).items():
        shown = "COMBO" if isinstance(type_, list) else type_
        slot = {"name": name, "type": shown, "link": None}
        if not is_widget(type_, options):
            sockets.append(slot | ({"shape": 7} if optional else {}))
            continue
        fields.append(slot | {"widget": {"name": name}})
        if _UPLOADS.get(node.kind) == name:
            fields.append({"name": "upload", "type": "IMAGEUPLOAD", "link": None, "widget": {"name": "upload"}})
    return sockets + fields


def canvas(template: Template, schemas: Schemas) -> JSON:
    """The form that the front end opens."""
    drawn = Canvas(template.nodes, schemas)
    note = {
        "id": max(template.nodes) + 1,
        "type": "MarkdownNote",
        "pos": list(template.note_pos),
        "size": list(template.note_size),
        "flags": {},
        "order": len(drawn.nodes),
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [template.note],
        "title": "Read me",
        "color": "#432",
        "bgcolor": "#653",
    }
    return {
        "id": _uuid(template.name),
        "revision": 0,
        "last_node_id": note["id"],
        "last_link_id": len(drawn.links),
        "nodes": [note, *drawn.nodes],
        "links": [list(link) for link in drawn.links],
        "groups": [],
        "config": {},
        "extra": {"ds": {"scale": template.zoom, "offset": list(template.offset)}},
        "version": 0.4,
    }


_LEFT, _RIGHT = OUTSIDE, -20
"""The nodes at both ends of a subgraph, as the front end numbers them."""


def subgraph(blueprint: Blueprint, schemas: Schemas) -> JSON:
    """A workflow of one node, which has the others inside, as the front end saves a blueprint."""
    drawn, name = Canvas(blueprint.nodes, schemas), blueprint.title
    by_id = {node["id"]: node for node in drawn.nodes}
    links = [dict(zip(_LINK, link, strict=True)) for link in drawn.links]
    inputs: list[JSON] = []
    for number, given in enumerate(blueprint.inputs):
        slots = [
            (node_id, place, slot)
            for node_id, node in blueprint.nodes.items()
            for place, slot in enumerate(by_id[node_id]["inputs"])
            if node.inputs.get(slot["name"]) == Output(_LEFT, number)
        ]
        type_ = slots[0][2]["type"]
        own = {"id": _uuid(f"{name}/{given}"), "name": given, "type": type_, "linkIds": [], "pos": [-220, 20 * number]}
        for node_id, place, slot in slots:
            slot["link"] = len(links) + 1
            own["linkIds"].append(slot["link"])
            links.append(dict(zip(_LINK, (slot["link"], _LEFT, number, node_id, place, type_), strict=True)))
        inputs.append(own)
    result, source = blueprint.output
    link = len(links) + 1
    end = by_id[source.node]["outputs"][source.number]
    end["links"].append(link)
    links.append(dict(zip(_LINK, (link, source.node, source.number, _RIGHT, 0, end["type"]), strict=True)))
    output = {
        "id": _uuid(f"{name}/{result}"),
        "name": result,
        "type": end["type"],
        "linkIds": [link],
        "pos": [1560, 20],
    }
    inside = {
        "id": _uuid(name),
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": max(by_id), "lastLinkId": link, "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": _LEFT, "bounding": [-320, -20, 120, 40 + 20 * len(inputs)]},
        "outputNode": {"id": _RIGHT, "bounding": [1540, 0, 120, 60]},
        "inputs": inputs,
        "outputs": [output],
        "widgets": [],
        "nodes": drawn.nodes,
        "groups": [],
        "links": links,
        "extra": {},
    }
    fields = {slot["name"] for node in drawn.nodes for slot in node["inputs"] if "widget" in slot}
    whole = {
        "id": 1,
        "type": inside["id"],
        "pos": [0, 0],
        "size": [320, 240],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [
            {"name": own["name"], "type": own["type"], "link": None}
            | ({"widget": {"name": own["name"]}} if own["name"] in fields else {})
            for own in inputs
        ],
        "outputs": [{"name": result, "type": end["type"], "links": []}],
        "title": name,
        "properties": {},
        "widgets_values": [_value(blueprint, schemas, given) for given in blueprint.inputs if given in fields],
    }
    return {
        "id": _uuid(f"{name}/workflow"),
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [whole],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [inside]},
        "config": {},
        "extra": {"BlueprintDescription": blueprint.description},
    }


_LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


def _value(blueprint: Blueprint, schemas: Schemas, name: str) -> Any:
    """What a field of the whole shows: what the node inside has."""
    number = blueprint.inputs.index(name)
    node = next(n for n in blueprint.nodes.values() if n.inputs.get(name) == Output(OUTSIDE, number))
    return value_of(node, name, schemas(node.kind))


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def texts(schemas: Schemas) -> dict[Path, str]:
    """Every file, and what it should have."""
    found = {SUBGRAPHS / f"{BLUEPRINT.title}.json": subgraph(BLUEPRINT, schemas)}
    for template in TEMPLATES:
        found[FOLDER / f"{template.name}.json"] = canvas(template, schemas)
        found[FOLDER / "api" / f"{template.name}.json"] = prompt(template, schemas)
    return {path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in found.items()}


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--thumbnails", nargs="*", metavar="NAME", help="also make the pictures (default: all)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as base, ComfyServer(comfyui.fetch(), Path(base)) as server:
        wanted = texts(server.object_info)
        other = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
        for path in other:
            sys.stdout.write(f"{path.relative_to(REPOSITORY)}\n")
            if not options.check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(wanted[path], encoding="utf-8")
        if options.thumbnails is not None:
            chosen = [t for t in TEMPLATES if not options.thumbnails or t.name in options.thumbnails]
            write_thumbnails(server, chosen, FOLDER)
    return 1 if options.check and other else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
