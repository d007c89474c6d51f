"""What the front end is told about the nodes: sockets, tooltips, help pages, translations."""

import json
import re
from pathlib import Path

import pytest
from comfy_server import ComfyServer

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "web" / "docs"
WORDS = ("restore", "super resolution", "upscale", "enhance", "denoise", "sharpen")
SIZE = ["size_by", "scale", "long_edge"]
SOCKETS = {
    "AlloSR2Upscale": (
        ["image", *SIZE, "realism", "color", "checkpoint"],
        ["mask", "t", "model", "vae"],
        ["IMAGE"],
    ),
    "AlloSR2PickFromList": (["values", "number"], [], ["*"]),
    "AlloSR2Loader": (["checkpoint", "strength"], ["model", "vae"], ["MODEL", "VAE", "ALLOSR2", "CONDITIONING"]),
    "SNRTimestepEstimate": (
        ["image", "vae", "allosr2", "method", "manual_t"],
        ["hr_reference"],
        ["FLOAT", "FLOAT", "STRING", "IMAGE"],
    ),
    "AlloSR2OneStepUpscale": (
        ["model", "vae", "allosr2", "image", *SIZE, "tile", "overlap"],
        ["shifted_grid", "t", "conditioning", "mask"],
        ["LATENT"],
    ),
    "TiledDecode": (["vae", "latent", "realism", "color", "tile", "mode"], [], ["IMAGE"]),
}


@pytest.mark.parametrize("node_id", SOCKETS)
def test_sockets_and_their_tooltips(server: ComfyServer, node_id: str) -> None:
    required, optional, outputs = SOCKETS[node_id]
    info = server.object_info(node_id)
    assert list(info["input"]["required"]) == required
    assert list(info["input"].get("optional", {})) == optional
    assert info["output"] == outputs
    assert info["category"] == "image/upscaling" and info["description"]
    for name, (_, options) in {**info["input"]["required"], **info["input"].get("optional", {})}.items():
        assert len(options.get("tooltip", "")) > 10, f"{node_id}.{name} has no tooltip"
    assert all(len(text) > 10 for text in info["output_tooltips"])


def test_what_people_type_finds_the_node(server: ComfyServer) -> None:
    """In its name or description, and as an alias where the host has aliases."""
    info = server.object_info("AlloSR2Upscale")
    text = f"{info['display_name']} {info['description']}".lower()
    assert all(word in info.get("search_aliases", text) and word in text for word in WORDS)


@pytest.mark.parametrize("node_id", ["AlloSR2Loader", "AlloSR2Upscale"])
def test_embedded_checkpoint_comes_first(server: ComfyServer, node_id: str) -> None:
    kind, options = server.object_info(node_id)["input"]["required"]["checkpoint"]
    choices = options["options"] if kind == "COMBO" else kind
    assert choices[0] == options["default"] == "allosr2-mini (embedded)"
    assert "small.safetensors" in choices


@pytest.mark.parametrize("language", ["", "/zh", "/ja"])
@pytest.mark.parametrize("node_id", SOCKETS)
def test_help_page_is_served_and_explains_every_input(server: ComfyServer, node_id: str, language: str) -> None:
    """Where the front end looks: for the locale's page, then for the English one; for pictures beside the latter."""
    status, body = server.request("GET", f"/extensions/allosr2/docs/{node_id}{language}.md")
    assert status == 200
    page = body.decode()
    for name in (*SOCKETS[node_id][0], *SOCKETS[node_id][1]):
        explained = (f"\n- **{name}**", f"** `{name}`")
        assert any(form in page for form in explained), f"{node_id}{language}.md does not explain {name}"
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page):
        assert server.request("GET", f"/extensions/allosr2/docs/{picture}")[0] == 200


@pytest.mark.parametrize("node_id", SOCKETS)
def test_help_page_has_the_ranges_of_the_sliders(server: ComfyServer, node_id: str) -> None:
    info, page = server.object_info(node_id)["input"], (DOCS / f"{node_id}.md").read_text(encoding="utf-8")
    for name, (kind, options) in {**info["required"], **info.get("optional", {})}.items():
        if kind in ("INT", "FLOAT") and "max" in options:
            least, most, start = (f"{options[key]:g}" for key in ("min", "max", "default"))
            limits = f"from {least}" if options["max"] == 2**31 - 1 else f"{least} to {most}"
            forms = [f"- **{name}** ({limits}, {word} {start}): " for word in ("default", "default and neutral")]
            assert any(form in page for form in forms), f"{node_id}.md: expected {forms[0]}"


@pytest.mark.parametrize("language", ["en", "zh", "ja"])
def test_translations_cover_every_input(server: ComfyServer, language: str) -> None:
    translations = json.loads((REPOSITORY / "locales" / language / "nodeDefs.json").read_text())
    assert set(translations) == set(SOCKETS)
    for node_id, (required, optional, outputs) in SOCKETS.items():
        entry = translations[node_id]
        assert entry["display_name"] and entry["description"]
        assert list(entry["inputs"]) == required + optional
        assert all(texts["name"] and texts["tooltip"] for texts in entry["inputs"].values())
        assert list(entry["outputs"]) == [str(i) for i in range(len(outputs))]
    assert server.get("/i18n")[language]["nodeDefs"].items() >= translations.items()


def test_english_texts_are_those_of_the_schemas(server: ComfyServer) -> None:
    translations = json.loads((REPOSITORY / "locales" / "en" / "nodeDefs.json").read_text())
    for node_id, entry in translations.items():
        info = server.object_info(node_id)
        assert entry["display_name"] == info["display_name"] and entry["description"] == info["description"]
        inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
        assert {name: texts["tooltip"] for name, texts in entry["inputs"].items()} == {
            name: options["tooltip"] for name, (_, options) in inputs.items()
        }
        assert [texts["tooltip"] for texts in entry["outputs"].values()] == info["output_tooltips"]
