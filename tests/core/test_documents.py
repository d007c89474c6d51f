"""What the documents name is there."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
NAMED = re.compile(r"`((?:[\w.-]+/)+[\w.*-]*)`")
MADE = ("data/", "runs/", "demo/output.png", "demo/compare.png", "models/", "ComfyUI/", "folder/", "results/")
"""What commands make, and what lies in a user's ComfyUI."""
FETCHED = (".venv", ".cache", "data", "runs", "build", "dist", ".pytest_cache")
HELP = REPOSITORY / "web" / "docs"
"""Against what ComfyUI's front end resolves the pictures of help pages, in whatever folder the page is."""
ROOMS = ("", "allosr2_core/")
"""Where a path may start."""


def documents() -> list[Path]:
    found = (path.relative_to(REPOSITORY) for path in REPOSITORY.rglob("*.md"))
    return sorted(REPOSITORY / path for path in found if path.parts[0] not in FETCHED)


def test_there_are_documents() -> None:
    assert len(documents()) > 8


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if "://" not in link]
    start = HELP if HELP in document.parents else document.parent
    broken = [link for link in links if not (start / link).exists()]
    assert not broken, f"links that lead nowhere: {broken}"
    top = {path.name for path in REPOSITORY.iterdir() if path.is_dir()} | {"image", "tiling", "networks", "checkpoint"}
    paths = [path for path in NAMED.findall(text) if path.split("/")[0] in top and not path.startswith(MADE)]
    lost = [path for path in paths if not any(list(REPOSITORY.glob(room + path.rstrip("/"))) for room in ROOMS)]
    # A path may go on with the name of something in the module: `image/resample.Resampled`.
    lost = [
        path for path in lost if not (REPOSITORY / "allosr2_core" / path.split(".")[0]).with_suffix(".py").is_file()
    ]
    assert not lost, f"paths that are not there: {lost}"
