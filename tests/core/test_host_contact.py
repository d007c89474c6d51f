"""ComfyUI's modules are imported in one folder only: everything else of the pack runs and is tested without them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONTACT = REPOSITORY / "nodes" / "comfy_host"
SCHEMA = "comfy_api"
"""The host's published interface for nodes."""
KNOWN = set(sys.stdlib_module_names) | {"torch"}
"""What the pack outside that folder may import besides its own modules."""
LIBRARIES = {"numpy", "PIL", "safetensors", "einops"}
"""And what its library may import beside that; ComfyUI ships them."""


def foreign(source: str, known: set[str]) -> Iterator[str]:
    """The packages that a module imports by an absolute name, for types too, and that are not known."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        yield from (name.partition(".")[0] for name in names if name.partition(".")[0] not in known)


def files(folder: str) -> list[Path]:
    return sorted(path for path in (REPOSITORY / folder).rglob("*.py") if CONTACT not in path.parents)


@pytest.mark.parametrize("folder", ["nodes", "allosr2_core"])
def test_only_one_folder_imports_the_host(folder: str) -> None:
    known = KNOWN | ({SCHEMA} if folder == "nodes" else LIBRARIES)
    found = {path.name: names for path in files(folder) if (names := set(foreign(path.read_text("utf-8"), known)))}
    assert len(files(folder)) > 5 and not found


def test_the_packs_entry_imports_its_nodes() -> None:
    source = (REPOSITORY / "__init__.py").read_text("utf-8")
    relative = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.level]
    assert [node.module for node in relative] == ["nodes"]
    assert not set(foreign(source, KNOWN | {SCHEMA}))


def test_the_files_of_contact_stay_small() -> None:
    assert len(list(CONTACT.glob("*.py"))) > 5
    for path in CONTACT.glob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) < 200, path.name


@pytest.mark.parametrize(
    "line", ["import comfy.utils", "from nodes import LoadImage", "from folder_paths import base_path"]
)
def test_contact_elsewhere_would_be_seen(line: str) -> None:
    assert list(foreign(f"def f():\n    {line}\n", KNOWN | {SCHEMA})) == [line.split()[1].partition(".")[0]]
