"""What `python -m allosr2_core upscale` refuses: wrong options, unusable paths, results it cannot store."""

from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.pictures import write_photo


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--scale", "0"), "above 0"),
        (("--scale", "nan"), "finite"),
        (("--scale", "many"), "invalid"),
        (("--scale", "2", "--long-edge", "64"), "not allowed with"),
        (("--long-edge", "0"), "1 or more"),
        (("--t", "1.5"), "between 0 and 1, predicted or calibrated"),
        (("--t", "paired"), "between 0 and 1, predicted or calibrated"),
        (("--realism", "-1"), "0 or more"),
        (("--tile", "-1"), "0 or more"),
        (("--overlap", "x"), "invalid"),
        (("--color", "hsv"), "invalid choice"),
        (("--threads", "0"), "1 or more"),
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
    write_photo(tmp_path / "in" / "b.tif")
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
        ("folder", "out.png", "expected a folder for the results"),
        ("folder", "in.png", "expected a folder for the results"),
        ("nothing", "out", "expected a folder with pictures"),
    ],
)
def test_unusable_paths_return_two(run: CommandLine, tmp_path: Path, source: str, target: str, reason: str) -> None:
    write_photo(tmp_path / "in.png")
    write_photo(tmp_path / "folder" / "a.png")
    (tmp_path / "nothing").mkdir()
    outcome = run.upscale(tmp_path / source, tmp_path / target)
    assert outcome.code == 2
    assert reason in outcome.err


def test_transparency_into_jpeg_fails_and_says_what_to_do(run: CommandLine, tmp_path: Path) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png", mode="RGBA"), tmp_path / "out.jpg")
    assert outcome.code == 1
    assert "JPEG cannot store transparency; expected .png or .webp" in outcome.err
    assert not (tmp_path / "out.jpg").exists()


def test_too_large_a_result_is_refused_before_any_work(run: CommandLine, tmp_path: Path) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out.png", "--scale", 5000)
    assert outcome.code == 1
    assert "expected at most" in outcome.err
