"""In Chinese and Japanese the page opens without an error, and what we have translated is shown."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from canvas import Canvas
from comfy_server import ComfyServer

REPOSITORY = Path(__file__).resolve().parents[2]
KIND = "AlloSR2Upscale"


@pytest.fixture(scope="module", params=["zh", "ja"])
def language(canvas: Canvas, request: pytest.FixtureRequest) -> Iterator[str]:
    canvas.open(Comfy_Locale=request.param)
    yield request.param
    canvas.open(Comfy_Locale="en")


def test_the_nodes_are_called_by_their_names(canvas: Canvas, server: ComfyServer, language: str) -> None:
    """The translated ones, where there are; front end 1.32.9 forgets a pack's when it loads a language of its own."""
    translations = REPOSITORY / "locales" / language / "nodeDefs.json"
    name = server.object_info(KIND)["display_name"]
    if canvas.vue and translations.exists():
        name = json.loads(translations.read_text())[KIND]["display_name"]
    with canvas.search_box():
        found = canvas.search(KIND, lambda results: any(name in result for result in results))
        assert any(name in result for result in found), found
        canvas.shot(f"search_{language}")


def test_help_is_in_the_language_it_is_written_in(canvas: Canvas, language: str) -> None:
    """English, where a page has no translation."""
    docs = REPOSITORY / "web" / "docs"
    pages = (docs / KIND / f"{language}.md", docs / f"{KIND}.md")
    title = next(page for page in pages if page.exists()).read_text().splitlines()[0].lstrip("# ")
    canvas.add(KIND)
    assert title in canvas.help_of(KIND)
    canvas.shot(f"help_{language}")


def test_a_template_opens(canvas: Canvas, language: str) -> None:
    canvas.open_template("allosr2_quick")
    canvas.shot(f"template_{language}", fit=True)
