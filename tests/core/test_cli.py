"""`python -m allosr2_core upscale` on a tiny random checkpoint: what is written, said and returned."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from allosr2_core.checkpoint.format import load_checkpoint
from allosr2_core.cli import picture as cli_picture
from allosr2_core.cli.progress import Progress
from allosr2_core.image.read import load_image
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from tests.support.command_line import CommandLine, Outcome
from tests.support.pictures import size, write_photo

# ---- pictures ----


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (9, 14), (33, 17)])
def test_a_picture_becomes_exactly_four_times_as_large(
    run: CommandLine, tmp_path: Path, height: int, width: int
) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png", height, width), tmp_path / "out.png")
    assert (outcome.code, outcome.err) == (0, "")
    assert size(tmp_path / "out.png") == (4 * height, 4 * width)
    first, last = outcome.out.splitlines()
    assert f"{width}x{height} -> {4 * width}x{4 * height}" in first
    assert last.startswith("1 picture, ")
    assert "peak memory" in last


def test_the_file_holds_what_the_library_returns(run: CommandLine, tmp_path: Path, tiny_checkpoint: Path) -> None:
    source = write_photo(tmp_path / "in.png", 20, 26)
    arguments = {"scale": 3.0, "t": 0.3, "realism": 0.7, "tile": 32, "overlap": 8, "color": "wavelet"}
    options = [part for name, value in arguments.items() for part in (f"--{name}", value)]
    assert run.upscale(source, tmp_path / "out.png", *options, "--shifted").code == 0
    upscaler = Pipeline.from_checkpoint(load_checkpoint(tiny_checkpoint))
    expected = upscaler.upscale(load_image(source).image_BHWC, UpscaleOptions(shifted=True, **arguments))
    written = load_image(tmp_path / "out.png").image_BHWC
    assert float((written - expected).abs().max()) <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("options", [(), ("--shifted",)])
def test_the_grid_is_shifted_when_asked_for(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    asked: list[bool] = []
    real = Pipeline.upscale

    def upscale(self: Pipeline, image: Tensor, options: UpscaleOptions, **given: Any) -> Tensor:
        asked.append(options.shifted)
        return real(self, image, options, **given)

    monkeypatch.setattr(Pipeline, "upscale", upscale)
    assert run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out.png", *options).code == 0
    assert asked == [bool(options)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--scale", 1.5), (14, 21)),  # 13.5 rounds up
        (("--scale", 0.5), (5, 7)),
        (("--long-edge", 100), (64, 100)),
        (("--t", "predicted"), (36, 56)),
        (("--t", "calibrated"), (36, 56)),
        (("--t", "0.4", "--realism", 0), (36, 56)),
        (("--tile", 16, "--overlap", 4), (36, 56)),
        (("--color", "lab", "--threads", torch.get_num_threads()), (36, 56)),
    ],
)
def test_options(run: CommandLine, tmp_path: Path, options: tuple, expected: tuple[int, int]) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out.png", *options)
    assert outcome.code == 0, outcome.err
    assert size(tmp_path / "out.png") == expected


def test_t_and_realism_change_the_picture(run: CommandLine, tmp_path: Path) -> None:
    source = write_photo(tmp_path / "in.png")
    pictures = []
    for i, options in enumerate([(), ("--t", 0.45), ("--realism", 0), ("--t", 0.45, "--realism", 0)]):
        run.upscale(source, tmp_path / f"{i}.png", *options)
        pictures.append(load_image(tmp_path / f"{i}.png").rgb_HWC)
    assert not torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    assert torch.equal(pictures[2], pictures[3])  # realism 0 is the input at any t


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_is_kept(run: CommandLine, tmp_path: Path, suffix: str) -> None:
    pixels = np.full((8, 10, 4), 200, dtype=np.uint8)
    pixels[..., 3] = np.where(np.arange(10) < 5, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    assert run.upscale(tmp_path / "in.png", tmp_path / f"out{suffix}").code == 0
    alpha = load_image(tmp_path / f"out{suffix}").alpha_HW
    assert alpha is not None
    assert alpha.shape == (32, 40)
    assert float(alpha[:, :14].max()) < 0.05
    assert float(alpha[:, 26:].min()) > 0.95


def test_output_folders_are_created(run: CommandLine, tmp_path: Path) -> None:
    source = write_photo(tmp_path / "in.jpg")
    assert run.upscale(source, tmp_path / "a" / "b" / "out.png").code == 0
    assert run.upscale(source, tmp_path / "c" / "d").code == 0
    assert size(tmp_path / "a" / "b" / "out.png") == size(tmp_path / "c" / "d" / "in.jpg") == (36, 56)


# ---- folders and failures ----


def test_a_folder_goes_on_after_bad_files(run: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_photo(folder / "a.jpg")
    write_photo(folder / "z.tif")
    write_photo(folder / "sub" / "deeper.png")
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not a picture")
    (folder / "cut.png").write_bytes((write_photo(folder / "whole.png", 64, 64)).read_bytes()[:2000])
    (folder / "notes.txt").write_text("notes")
    (folder / ".hidden.png").touch()
    outcome = run.upscale(folder, tmp_path / "out", "--scale", 2)
    assert outcome.code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "whole.png", "z.tif"]
    for name in ("empty.png", "text.png", "cut.png"):
        assert f"failed: {folder / name}: expected" in outcome.err
    assert "left out 1, no picture by the suffix: notes.txt" in outcome.err
    assert outcome.out.splitlines()[-1].startswith("3 pictures, 3 failed, ")


def test_a_good_folder_returns_zero_and_quiet_says_nothing(run: CommandLine, tmp_path: Path) -> None:
    for name in ("a.png", "b.webp"):
        write_photo(tmp_path / "in" / name)
    assert run.upscale(tmp_path / "in", tmp_path / "out", "--quiet") == Outcome(0, "", "")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_quiet_still_names_failures(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    outcome = run.upscale(tmp_path / "empty.png", tmp_path / "out.png", "--quiet")
    assert (outcome.code, outcome.out) == (1, "")
    assert "empty.png" in outcome.err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("not enough memory: you tried to allocate 99 bytes")])
def test_lack_of_memory_fails_one_picture_only(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for name in ("a.png", "b.png"):
        write_photo(tmp_path / "in" / name)
    work, calls = cli_picture.save_image, []

    def fail_first(*arguments: object) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return work(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cli_picture, "save_image", fail_first)
    outcome = run.upscale(tmp_path / "in", tmp_path / "out")
    assert outcome.code == 1
    assert f"failed: {tmp_path / 'in' / 'a.png'}: " in outcome.err
    assert "smaller --scale or --tile" in outcome.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]


def test_interrupt_leaves_no_half_file(run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Progress) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "tick", interrupt)
    outcome = run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out" / "out.png")
    assert outcome.code == 130
    assert "interrupted" in outcome.err
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "file" / "out.png")
    assert outcome.code == 1
    assert "could not be created" in outcome.err


# ---- the module as a program ----


def test_help_names_every_option(run: CommandLine) -> None:
    outcome = run("upscale", "--help")
    assert outcome.code == 0
    options = (
        "scale long-edge t realism mask tile overlap shifted color checkpoint threads quiet "
        "recursive skip-existing format quality depth strip compare json"
    )
    for option in options.split():
        assert f"--{option}" in outcome.out


@pytest.mark.parametrize("command", [(), ("upscale",), ("inspect",)])
def test_help_names_the_exit_codes(run: CommandLine, command: tuple[str, ...]) -> None:
    text = " ".join(run(*command, "--help").out.split())
    for code in ("0 all good", "1 a picture", "2 nothing was done", "130 interrupted"):
        assert code in text


def test_as_a_program(tmp_path: Path, tiny_checkpoint: Path) -> None:
    source = write_photo(tmp_path / "in.png")
    command = [sys.executable, "-m", "allosr2_core", "upscale", source, tmp_path / "out.png", "--threads", "1"]
    finished = subprocess.run(  # noqa: S603 - our own module
        [*command, "--checkpoint", tiny_checkpoint],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    assert size(tmp_path / "out.png") == (36, 56)


def test_a_reader_that_goes_away_ends_the_run_quietly(tmp_path: Path, tiny_checkpoint: Path) -> None:
    for number in range(3):
        write_photo(tmp_path / "in" / f"{number}.png")
    command = [sys.executable, "-u", "-m", "allosr2_core", "upscale", tmp_path / "in", tmp_path / "out"]
    with subprocess.Popen(  # noqa: S603 - our own module
        [*command, "--checkpoint", tiny_checkpoint],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        said = running.stderr.read()
        assert running.wait(timeout=120) == 141
    assert said == ""
    assert all(path.suffix == ".png" for path in (tmp_path / "out").iterdir())
