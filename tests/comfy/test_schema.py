"""What the front end is told about the nodes: sockets, tooltips, help pages, translations."""

import json
from pathlib import Path

import pytest
from comfy_server import ComfyServer

REPOSITORY = Path(__file__).resolve().parents[2]
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


@pytest.mark.parametrize("node_id", SOCKETS)
def test_help_page_is_served_and_explains_every_input(server: ComfyServer, node_id: str) -> None:
    status, body = server.request("GET", f"/extensions/allosr2/docs/{node_id}.md")
    assert status == 200
    page = body.decode()
    for name in (*SOCKETS[node_id][0], *SOCKETS[node_id][1]):
        assert f"**{name}**" in page, f"{node_id}.md does not explain {name}"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_translations_cover_every_input(server: ComfyServer, language: str) -> None:
    translations = json.loads((REPOSITORY / "locales" / language / "nodeDefs.json").read_text())
    assert set(translations) == set(SOCKETS)
    for node_id, (required, optional, outputs) in SOCKETS.items():
        entry = translations[node_id]
        assert entry["display_name"] and entry["description"]
        assert list(entry["inputs"]) == required + optional
        assert all(texts["name"] and texts["tooltip"] for texts in entry["inputs"].values())
        assert list(entry["outputs"]) == [str(i) for i in range(len(outputs))]
    assert language in server.get("/i18n")


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
