"""What `python -m allosr2_core upscale` refuses: wrong options, unusable paths, results it cannot store."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from allosr2_core.pipeline import Pipeline
from tests.support.command_line import CommandLine
from tests.support.pictures import size, write_photo


def bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--scale", "0"), "above 0"),
        (("--scale", "nan"), "expected a number above 0; got nan"),
        (("--scale", "many"), "expected a number above 0; got many"),
        (("--scale", "2", "--long-edge", "64"), "not allowed with"),
        (("--long-edge", "0"), "1 or more"),
        (("--t", "1.5"), "between 0 and 1, or 'predicted', or 'calibrated'"),
        (("--t", "paired"), "between 0 and 1, or 'predicted', or 'calibrated'"),
        (("--realism", "-1"), "of 0 to 100"),
        (("--tile", "-1"), "0 or more"),
        (("--overlap", "x"), "expected a whole number of 0 or more; got x"),
        (("--color", "hsv"), "invalid choice"),
        (("--threads", "0"), "1 to 1024"),
        (("--threads", "9" * 5000), "1 to 1024, got 99"),
        (("--tile", "9" * 400), "0 or more; got 99"),
        (("--realism", "1e39"), "expected a number of 0 to 100; got 1e39"),
        (("--format", "bmp"), "invalid choice"),
        (("--quality", "0"), "1 to 100"),
        (("--quality", "101"), "1 to 100"),
        (("--depth", "12"), "invalid choice"),
        (("--format", "jpg"), "expected a name ending in .jpg"),
        (("--recursive",), "expected a folder for --recursive, got a file"),
        (("--json", "."), "got a folder"),
        (("--what",), "unrecognized"),
    ],
)
def test_wrong_options_return_two(run: CommandLine, tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out.png", *options)
    assert outcome.code == 2
    assert reason in outcome.err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("arguments", [(), ("upscale",), ("upscale", "a.png"), ("enlarge",)])
def test_missing_arguments_return_two(run: CommandLine, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).code == 2


def test_inputs_are_never_overwritten(run: CommandLine, tmp_path: Path) -> None:
    source = write_photo(tmp_path / "in" / "a.png")
    write_photo(tmp_path / "in" / "b.bmp")
    before = source.read_bytes()
    (tmp_path / "link.png").symlink_to(source)
    (tmp_path / "hard.png").hardlink_to(source)
    odd = tmp_path / "in" / ".." / "in" / "a.png"
    for target in (source, source.parent, odd, tmp_path / "link.png", tmp_path / "hard.png"):
        outcome = run.upscale(source, target)
        assert outcome.code == 2
        assert "not an input" in outcome.err
    assert run.upscale(source.parent, source.parent).code == 2
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("none.png", "out.png", "found nothing"),
        ("in.png", "out.bmp", "expected a folder, or a file ending in"),
        ("in.png", "photos.old", "end the name of a new folder in a slash"),
        ("in.png", "notes.txt/", "expected a folder by the slash, found a file"),
        ("in.png", "notes", "expected a folder, or a file ending in"),
        ("folder", "notes", "expected a folder for the results"),
        ("folder", "out.png", "expected a folder for the results"),
        ("folder", "out.bmp", "expected a folder for the results"),
        ("folder", "in.png", "expected a folder for the results"),
        ("nothing", "out", "expected a folder with pictures"),
    ],
)
def test_unusable_paths_return_two(run: CommandLine, tmp_path: Path, source: str, target: str, reason: str) -> None:
    write_photo(tmp_path / "in.png")
    write_photo(tmp_path / "folder" / "a.png")
    (tmp_path / "nothing").mkdir()
    for name in ("notes", "notes.txt"):
        (tmp_path / name).write_text("notes")
    outcome = run.upscale(tmp_path / source, f"{tmp_path}/{target}")
    assert outcome.code == 2
    assert reason in outcome.err


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused is refused before the network sees a picture."""

    def upscale(self: Pipeline, *arguments: object, **given: object) -> None:
        raise AssertionError("worked on it")

    monkeypatch.setattr(Pipeline, "upscale", upscale)


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("http://host/a.png", "download it"),
        ("HTTPS://host/a.png", "download it"),
        ("smb://host/share", "mount the share"),
        ("sftp://host/share/a.png", "mount the share"),
        ("file:///a.png", "without file://"),
        ("", "an empty one"),
    ],
)
def test_addresses_are_refused(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, advice: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_photo(tmp_path / "in.png")
    for given in ((address, "out.png"), (source, address), (source, "out.png", "--mask", address)):
        outcome = run.upscale(*given)
        assert outcome.code == 2
        assert advice in outcome.err or ("http" in address.lower() and "upload" in outcome.err)
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_a_link_as_output_is_followed(run: CommandLine, tmp_path: Path) -> None:
    source, elsewhere = write_photo(tmp_path / "in.png"), tmp_path / "far" / "result.png"
    elsewhere.parent.mkdir()
    (tmp_path / "out.png").symlink_to(elsewhere)
    for _ in range(2):  # a link to nothing yet, and to an older result
        assert run.upscale(source, tmp_path / "out.png").code == 0
        assert (tmp_path / "out.png").is_symlink()
        assert size(elsewhere) == (36, 56)


@pytest.mark.parametrize(("kind", "make"), [("a pipe", os.mkfifo), ("a socket", bind)])
def test_what_is_no_file_is_named(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, make: Callable[[str], None]
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket has to be short
    Path("in").mkdir()
    make("in/odd.png")
    write_photo(Path("in/good.png"))
    for source, good in (("in/odd.png", False), ("in", True)):
        outcome = run.upscale(source, "out/")
        assert outcome.code == 1
        assert f"failed: in/odd.png: expected an image file, found {kind}" in outcome.err
        assert Path("out/good.png").exists() is good


@pytest.mark.usefixtures("no_work")
def test_transparency_into_jpeg_is_refused_before_the_work(run: CommandLine, tmp_path: Path) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png", mode="RGBA"), tmp_path / "out.jpg")
    assert outcome.code == 1
    assert str(tmp_path / "in.png") in outcome.err
    assert "JPEG" in outcome.err
    assert ".png" in outcome.err
    assert not (tmp_path / "out.jpg").exists()


def test_an_opaque_alpha_channel_is_no_transparency(run: CommandLine, tmp_path: Path) -> None:
    Image.new("RGBA", (14, 9), (10, 200, 30, 255)).save(tmp_path / "in.png")
    assert run.upscale(tmp_path / "in.png", tmp_path / "out.jpg").code == 0
    assert size(tmp_path / "out.jpg") == (36, 56)


@pytest.mark.usefixtures("no_work")
def test_too_large_a_result_is_refused_before_any_work(run: CommandLine, tmp_path: Path) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out.png", "--scale", 5000)
    assert outcome.code == 1
    assert "expected at most" in outcome.err


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("out.webp", ("--long-edge", 16384), "16383"),
        (f"{'x' * 252}.png", (), "255"),
        (f"{'x' * 245}.png", ("--compare",), "255"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_the_work(
    run: CommandLine, tmp_path: Path, name: str, options: tuple, reason: str
) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out" / name, *options)
    assert outcome.code == 1
    assert reason in outcome.err
    assert f"{tmp_path / 'in.png'}: " in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("target", "options"),
    [("out.jpg", ()), ("out.webp", ()), ("out/", ("--format", "jpg")), ("out/", ("--format", "webp"))],
)
def test_sixteen_bits_are_refused_where_they_cannot_be(
    run: CommandLine, tmp_path: Path, target: str, options: tuple[str, ...]
) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png"), f"{tmp_path}/{target}", "--depth", 16, *options)
    assert outcome.code == 2
    assert "expected a depth of 8" in outcome.err


def test_in_a_folder_what_cannot_be_stored_fails_alone(run: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a.jpg", "b.png", f"{'c' * 245}.png"):
        write_photo(folder / name)
    write_photo(folder / "wide.webp", 1, 300)
    outcome = run.upscale(folder, tmp_path / "out", "--depth", 16, "--compare", "--scale", 2)
    assert outcome.code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.compare.png", "b.png"]
    assert len([line for line in outcome.err.splitlines() if line.startswith("failed: ")]) == 3
    assert outcome.out.splitlines()[-1].startswith("1 picture, 3 failed, ")


@pytest.mark.parametrize("bad", ["size", "colours", "transparent", "folder"])
def test_masks_that_do_not_fit_are_refused(run: CommandLine, tmp_path: Path, bad: str) -> None:
    source = write_photo(tmp_path / "in" / "in.png")
    mode = {"colours": "RGB", "transparent": "LA"}.get(bad, "L")
    mask = write_photo(tmp_path / "mask.png", height=8 if bad == "size" else 9, mode=mode)
    outcome = run.upscale(source.parent if bad == "folder" else source, tmp_path / "out", "--mask", mask)
    assert outcome.code == 2
    reasons = {"size": ("14x9", "14x8"), "folder": ("one picture",), "colours": ("grey",), "transparent": ("grey",)}
    for reason in reasons[bad]:
        assert reason in outcome.err
    assert not (tmp_path / "out").exists()


def test_the_mask_and_the_inputs_are_not_replaced(run: CommandLine, tmp_path: Path) -> None:
    source, mask = write_photo(tmp_path / "in.png"), write_photo(tmp_path / "mask.png", mode="L")
    before = mask.read_bytes(), source.read_bytes()
    for options in (
        (mask, "--mask", mask),
        (tmp_path / "out.png", "--json", source),
        (tmp_path / "out.png", "--json", tmp_path / "out.png"),
        (tmp_path / "out.png", "--mask", mask, "--json", mask),
    ):
        outcome = run.upscale(source, *options)
        assert outcome.code == 2
        assert "not an input" in outcome.err or "a file of its own" in outcome.err
    assert (mask.read_bytes(), source.read_bytes()) == before
    assert not (tmp_path / "out.png").exists()
