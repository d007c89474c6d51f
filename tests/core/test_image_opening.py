"""Files from strangers are opened in one place, as one of our formats, whatever they are called."""

import ast
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.opening import MOST_BYTES, open_picture
from allosr2_core.image.read import READABLE_SUFFIXES, load_image, read_header

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("allosr2_core", "nodes", "tools", "benchmarks", "demo")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"
EPS_OF_DOS = b"\xc5\xd0\xd3\xc6" + (30).to_bytes(4, "little") + len(EPS).to_bytes(4, "little") + bytes(18) + EPS


def calls(package: str) -> Iterator[tuple[str, set[str | None]]]:
    """File and named arguments of every call of `Image.open` in a package."""
    for path in (REPOSITORY / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open"):
                yield str(path.relative_to(REPOSITORY)), {argument.arg for argument in node.keywords}


def test_pillow_opens_files_in_one_place_and_is_told_what_they_may_be() -> None:
    found = [path for package in PACKAGES for path, _ in calls(package)]
    assert found == ["allosr2_core/image/opening.py"]


def test_the_trainer_names_formats_too() -> None:
    """Of what it has made itself, in memory; files are opened as above."""
    found = list(calls("train"))
    assert found and all("formats" in named for _, named in found)


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called gs that leaves a mark when it is started, and the mark's path."""
    program, mark = tmp_path / "bin" / "gs", tmp_path / "started"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\necho 10.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return mark


def test_without_a_word_pillow_starts_another_program(ghostscript: Path) -> None:
    """What the formats named in `opening` keep from happening."""
    with Image.open(io.BytesIO(EPS)) as picture, pytest.raises(OSError):
        picture.load()
    assert ghostscript.exists()


@pytest.mark.parametrize("suffix", [*READABLE_SUFFIXES, ".eps", ""])
@pytest.mark.parametrize("data", [EPS, EPS_OF_DOS, b"\n" + EPS, bytes(2) + EPS], ids=["eps", "dos", "line", "zeros"])
def test_no_file_starts_another_program(tmp_path: Path, ghostscript: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    for read in (read_header, load_image):
        with pytest.raises(AlloSR2Error, match="x"):
            read(path)
    with pytest.raises(AlloSR2Error, match="x"), open_picture(path) as picture:
        picture.load()
    assert not ghostscript.exists()


def test_the_command_line_starts_no_other_program(tmp_path: Path, ghostscript: Path) -> None:
    (tmp_path / "x.png").write_bytes(EPS)
    command = [sys.executable, "-m", "allosr2_core", "upscale", str(tmp_path / "x.png"), str(tmp_path / "out.png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False)
    assert done.returncode == 1
    assert "got PostScript" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not ghostscript.exists()


def test_an_opened_picture_is_pillows(tmp_path: Path) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    with open_picture(tmp_path / "a.jpg") as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), pixels)
    with pytest.raises(AlloSR2Error, match=r"a\.jpg: expected a picture of at most 19 pixels, got 5x4"):
        with open_picture(tmp_path / "a.jpg", most_pixels=19):
            raise AssertionError("opened it")


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "folder", "missing"])
def test_what_cannot_be_opened_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.jpg"
    if kind == "text":
        path.write_text("a photograph of a dog")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(AlloSR2Error, match=r"bad\.jpg: expected "), open_picture(path) as picture:
        picture.load()


def test_a_huge_file_that_is_no_picture_is_not_read(tmp_path: Path) -> None:
    """Sparse: it takes no room on the disk, but would in memory."""
    for name, size, reason in (("a.png", MOST_BYTES, "none of"), ("b.png", MOST_BYTES + 1, "at most 4294967296 bytes")):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        with pytest.raises(AlloSR2Error, match=reason):
            read_header(tmp_path / name)
