"""`python -m allosr2_core upscale` on folders: trees, formats, what is skipped, and the summary as JSON."""

import json
from pathlib import Path

import pytest
from PIL import Image

from allosr2_core.cli.progress import Progress
from tests.support.command_line import CommandLine
from tests.support.pictures import size, write_photo


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_recursive(run: CommandLine, tmp_path: Path) -> None:
    for name in ("a.png", "x/b.tif", "x/y/b.bmp"):
        write_photo(tmp_path / "in" / name)
    target = tmp_path / "in" / "results"
    for _ in range(2):  # the second time the results are there already
        assert run.upscale(tmp_path / "in", target, "--recursive").code == 0
        assert tree(target) == ["a.png", "x/b.tif", "x/y/b.png"]
    assert size(target / "x" / "y" / "b.png") == (36, 56)


def test_a_new_folder_with_a_dot_and_a_slash(run: CommandLine, tmp_path: Path) -> None:
    source = write_photo(tmp_path / "in" / "a.png")
    assert run.upscale(source, f"{tmp_path}/2024.05.01/").code == 0
    assert run.upscale(source.parent, f"{tmp_path}/results.new").code == 0
    assert run.upscale(source.parent, f"{tmp_path}/all.png/").code == 0
    for folder in ("2024.05.01", "results.new", "all.png"):
        assert tree(tmp_path / folder) == ["a.png"]


def test_skip_existing(run: CommandLine, tmp_path: Path) -> None:
    for name in ("a.png", "b.bmp", "c.png"):
        write_photo(tmp_path / "in" / name)
    (tmp_path / "out").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "out" / name).write_text("older")
    outcome = run.upscale(tmp_path / "in", tmp_path / "out", "--skip-existing")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1].startswith("1 picture, 2 skipped")
    assert (tmp_path / "out" / "a.png").read_text() == (tmp_path / "out" / "b.png").read_text() == "older"
    assert size(tmp_path / "out" / "c.png") == (36, 56)
    again = run("upscale", tmp_path / "in", tmp_path / "out", "--skip-existing", "--checkpoint", tmp_path / "none")
    assert again.code == 0  # nothing to do, so no checkpoint is needed
    assert again.out.startswith("0 pictures, 3 skipped")
    assert run.upscale(tmp_path / "in", tmp_path / "out").code == 0
    assert size(tmp_path / "out" / "a.png") == (36, 56)


@pytest.mark.parametrize("file_format", ["png", "jpg", "webp", "tiff"])
def test_format(run: CommandLine, tmp_path: Path, file_format: str) -> None:
    for name in ("a.png", "b.jpg", "c.bmp"):
        write_photo(tmp_path / "in" / name)
    assert run.upscale(tmp_path / "in", tmp_path / "out", "--format", file_format).code == 0
    assert tree(tmp_path / "out") == [f"{name}.{file_format}" for name in "abc"]
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as picture:
            assert picture.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tiff": "TIFF"}[file_format]


def test_quality(run: CommandLine, tmp_path: Path) -> None:
    source = write_photo(tmp_path / "in.png", 40, 40)
    for suffix in ("jpg", "webp"):
        sizes = []
        for quality in (20, 95):
            assert run.upscale(source, tmp_path / f"out.{suffix}", "--quality", quality).code == 0
            sizes.append((tmp_path / f"out.{suffix}").stat().st_size)
        assert sizes[0] < 0.7 * sizes[1]


def test_a_transparent_picture_named_jpg_becomes_a_png(run: CommandLine, tmp_path: Path) -> None:
    write_photo(tmp_path / "in" / "a.png", mode="RGBA").rename(tmp_path / "in" / "a.jpg")
    write_photo(tmp_path / "in" / "b.jpg")
    outcome = run.upscale(tmp_path / "in", tmp_path / "out")
    assert outcome.code == 0
    assert tree(tmp_path / "out") == ["a.png", "b.jpg"]
    assert "a.jpg: transparent, which JPEG cannot hold: written as .png" in outcome.err
    failing = run.upscale(tmp_path / "in", tmp_path / "jpg", "--format", "jpg")
    assert failing.code == 1
    assert tree(tmp_path / "jpg") == ["b.jpg"]


# ---- JSON ----


def test_json_to_a_file(run: CommandLine, tmp_path: Path) -> None:
    write_photo(tmp_path / "in" / "a.png", 4, 6)
    write_photo(tmp_path / "in" / "c.png")
    (tmp_path / "in" / "b.png").write_text("no picture")
    (tmp_path / "in" / "notes.txt").write_text("notes")
    (tmp_path / "out").mkdir()
    for name in ("c.png", "c.compare.png"):
        (tmp_path / "out" / name).write_text("older")
    report = tmp_path / "reports" / "r.json"
    options = ("--json", report, "--skip-existing", "--realism", 0.5, "--compare")
    outcome = run.upscale(tmp_path / "in", tmp_path / "out", *options)
    assert outcome.code == 1
    assert " -> " in outcome.out
    found = json.loads(report.read_text())
    pictures = {Path(picture["source"]).name: picture for picture in found["pictures"]}
    assert {name: picture["status"] for name, picture in pictures.items()} == {
        "a.png": "done",
        "b.png": "failed",
        "c.png": "skipped",
    }
    done = pictures["a.png"]
    assert done["target"] == str(tmp_path / "out" / "a.png")
    assert done["compare"] == str(tmp_path / "out" / "a.compare.png")
    assert (done["source_size"], done["target_size"], done["bits"]) == ([6, 4], [24, 16], 8)
    assert done["seconds"] > 0
    assert (done["notes"], done["error"]) == ([], None)
    assert "b.png: expected" in pictures["b.png"]["error"]
    totals = found["totals"]
    assert (totals["done"], totals["failed"], totals["skipped"]) == (1, 1, 1)
    assert totals["seconds"] > 0
    settings = found["settings"]
    assert (settings["scale"], settings["realism"], settings["depth"]) == (4.0, 0.5, "auto")
    assert settings["checkpoint"].endswith("tiny.safetensors")
    assert [Path(path).name for path in found["left_out"]] == ["notes.txt"]
    assert [path.name for path in report.parent.iterdir()] == ["r.json"]


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_json_on_standard_output_is_alone_there(run: CommandLine, tmp_path: Path, quiet: tuple[str, ...]) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out.png", "--json", "-", *quiet)
    assert outcome.code == 0
    assert json.loads(outcome.out)["totals"]["done"] == 1
    assert (outcome.err == "") is bool(quiet)


def test_json_of_an_odd_name(run: CommandLine, tmp_path: Path) -> None:
    source = tmp_path / "in" / "\udcff\n\u00e4.png"  # a name that is no UTF-8
    try:
        write_photo(source)
    except (OSError, UnicodeError):
        pytest.skip("runs where the file system takes names that are no UTF-8, as Linux does")
    outcome = run.upscale(source, tmp_path / "out", "--json", "-")
    assert json.loads(outcome.out)["pictures"][0]["source"] == str(source)


def test_json_that_cannot_be_written_is_a_failure(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    options = ("--json", tmp_path / "file" / "r.json")
    outcome = run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out.png", *options)
    assert outcome.code == 1
    assert "summary could not be written" in outcome.err
    assert size(tmp_path / "out.png") == (36, 56)


def test_json_of_an_interrupted_run(run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        write_photo(tmp_path / "in" / name)
    real = Progress.begin

    def begin(self: Progress, name: str, work: float, frames: int = 1) -> None:
        if name == "b.png":
            raise KeyboardInterrupt
        real(self, name, work, frames)

    monkeypatch.setattr(Progress, "begin", begin)
    outcome = run.upscale(tmp_path / "in", tmp_path / "out", "--json", "-")
    assert outcome.code == 130
    found = json.loads(outcome.out)
    assert found["interrupted"] is True
    assert [Path(picture["source"]).name for picture in found["pictures"]] == ["a.png"]
