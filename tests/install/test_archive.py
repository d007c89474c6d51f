"""The archive that the ComfyUI registry hands out: what is in it, how large it is, and that it works."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from install_tools import run, stated
from installed import check

COMFY = Path(sys.executable).with_name("comfy")
LARGEST = 45.0  # MB: the weights, and little else
MORE = 0.15  # MB; the largest file besides the weights
TOP = {
    *("__init__.py", "allosr2_core", "docs", "example_workflows", "locales", "nodes", "subgraphs", "web"),
    *(
        "pyproject.toml",
        "requirements.txt",
        "LICENSE",
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "CREDITS.md",
        "SECURITY.md",
    ),
}


@pytest.fixture(scope="module")
def checkout(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packing") / "allosr2"
    run("git", "clone", "--quiet", bare, folder)
    return folder


@pytest.fixture(scope="module")
def archive(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `comfy node pack` makes."""
    home = str(tmp_path_factory.mktemp("home"))
    run(COMFY, "--skip-prompt", "node", "pack", cwd=checkout, HOME=home, DO_NOT_TRACK="1")
    return checkout / "node.zip"


def test_the_registry_finds_nothing_wrong(checkout: Path, tmp_path: Path) -> None:
    said = run(COMFY, "--skip-prompt", "node", "validate", cwd=checkout, HOME=str(tmp_path), DO_NOT_TRACK="1")
    assert "All validation checks passed" in said, said


def test_content_and_size(archive: Path) -> None:
    megabytes = 1e6
    with zipfile.ZipFile(archive) as packed:
        sizes = {entry.filename: entry.file_size / megabytes for entry in packed.infolist() if not entry.is_dir()}
    assert {name.split("/")[0] for name in sizes} <= TOP
    assert archive.stat().st_size / megabytes < LARGEST
    assert archive.stat().st_size / megabytes == pytest.approx(stated("archive, as"), rel=0.1)
    large = {name: size for name, size in sizes.items() if size > MORE and not name.endswith(".safetensors")}
    assert not large


def test_no_finding_of_the_security_rules(archive: Path, tmp_path: Path) -> None:
    """Hard here; `comfy node validate` only warns."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    command = [Path(sys.executable).with_name("ruff"), "check", "--isolated", "--no-cache", "--select", "S", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_works_without_git(
    archive: Path, new_comfyui: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comfyui = new_comfyui()
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(comfyui / "custom_nodes" / "allosr2")
    check(comfyui, monkeypatch, tmp_path)
