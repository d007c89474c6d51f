"""The forms for issues are what GitHub takes, and what they point to is there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
FORMS = sorted(path for path in (REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def form(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_it_is_a_form(path: Path) -> None:
    read = form(path)
    assert read["name"] and read["description"]
    assert {part["type"] for part in read["body"]} <= KINDS
    asked = [part for part in read["body"] if part["type"] != "markdown"]
    assert all(part["attributes"]["label"] for part in asked)
    assert any(part.get("validations", {}).get("required") for part in asked)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_the_files_it_names_are_there(path: Path) -> None:
    named = re.findall(r"(?:[\w-]+/)+[\w-]+\.\w+", path.read_text(encoding="utf-8"))
    assert named
    assert not [name for name in named if not (REPOSITORY / name).exists()]


def test_there_are_two() -> None:
    assert [path.stem for path in FORMS] == ["bug", "quality"]
