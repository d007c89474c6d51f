"""`python -m allosr2_core` on a tiny random checkpoint: what is written, said and returned, for good and bad input."""

import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from allosr2_core import cli
from allosr2_core.checkpoint import AlloSR2Config, load_checkpoint, save_checkpoint
from allosr2_core.cli import main
from allosr2_core.errors import AlloSR2Error
from allosr2_core.image import load_image
from allosr2_core.jobs import plan_jobs
from allosr2_core.networks import build_network
from allosr2_core.patch_autoencoder import PatchAutoencoder, PatchAutoencoderParams
from allosr2_core.progress import Progress
from allosr2_core.snr import SNRHead, SNRHeadParams
from allosr2_core.upscale import Upscaler

NETWORK = {"type": "unet", "latent_channels": 4, "channels": [4, 8], "blocks": [1, 1], "time_dim": 8}
AUTOENCODER = {"patch": 4, "latent_channels": 4, "hidden": 4, "blocks": 1, "pixel_channels": 3}
HEAD = {"latent_channels": 4, "hidden": 4}
CONFIG = AlloSR2Config(
    base="allosr2-mini",
    network=NETWORK,
    autoencoder=AUTOENCODER,
    snr_head=HEAD,
    init="aligned",
    t_star=0.22,
    t_min=0.05,
    t_max=0.5,
    t_method="predicted",
    scale=4,
    trained_size=64,
    tile_size=64,
    latent_channels=4,
    latent_downscale=4,
    latent_scale=1.0,
    latent_shift=0.0,
)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    autoencoder = PatchAutoencoder(PatchAutoencoderParams(**AUTOENCODER))
    prior, network = build_network(NETWORK), build_network(NETWORK)
    network.load_state_dict({k: v + 0.05 * torch.randn_like(v) for k, v in prior.state_dict().items()})
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(
        path,
        CONFIG,
        {"steps": 12, "data": "random"},
        prior=prior,
        network=network,
        autoencoder=autoencoder,
        encoder=autoencoder.encoder,
        snr_head=SNRHead(SNRHeadParams(**HEAD)),
    )
    return path


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class CommandLine:
    """Runs `main` in this process with the tiny checkpoint."""

    def __init__(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.checkpoint, self.capsys = checkpoint, capsys

    def __call__(self, *arguments: object) -> Outcome:
        self.capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse
            code = int(exit_.code or 0)
        captured = self.capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    def upscale(self, *arguments: object) -> Outcome:
        return self("upscale", *arguments, "--checkpoint", self.checkpoint)


@pytest.fixture
def run(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(tiny_checkpoint, capsys)


def write_photo(path: Path, height: int = 9, width: int = 14, mode: str = "RGB", seed: int = 0) -> Path:
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values if channels > 1 else values[..., 0]).save(path)
    return path


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.height, picture.width


# ---- upscale: pictures ----


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
    assert run.upscale(source, tmp_path / "out.png", *options).code == 0
    upscaler = Upscaler.from_checkpoint(load_checkpoint(tiny_checkpoint))
    expected = upscaler.upscale(load_image(source).image_BHWC, **arguments)
    written = load_image(tmp_path / "out.png").image_BHWC
    assert float((written - expected).abs().max()) <= 0.5 / 255 + 1e-6


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


def test_transparency_into_jpeg_fails_and_says_what_to_do(run: CommandLine, tmp_path: Path) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png", mode="RGBA"), tmp_path / "out.jpg")
    assert outcome.code == 1
    assert "JPEG cannot store transparency; expected .png or .webp" in outcome.err
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey(run: CommandLine, tmp_path: Path, mode: str) -> None:
    assert run.upscale(write_photo(tmp_path / "in.png", mode=mode), tmp_path / "out.png").code == 0
    assert (load_image(tmp_path / "out.png").alpha_HW is not None) == (mode == "LA")


def test_grey16(run: CommandLine, tmp_path: Path) -> None:
    Image.fromarray(np.arange(126, dtype=np.uint16).reshape(9, 14) * 500).save(tmp_path / "in.png")
    outcome = run.upscale(tmp_path / "in.png", tmp_path / "out.png")
    assert (outcome.code, outcome.err) == (0, "")
    assert size(tmp_path / "out.png") == (36, 56)


def test_output_folders_are_created(run: CommandLine, tmp_path: Path) -> None:
    source = write_photo(tmp_path / "in.jpg")
    assert run.upscale(source, tmp_path / "a" / "b" / "out.png").code == 0
    assert run.upscale(source, tmp_path / "c" / "d").code == 0
    assert size(tmp_path / "a" / "b" / "out.png") == size(tmp_path / "c" / "d" / "in.jpg") == (36, 56)


# ---- upscale: folders and failures ----


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
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "whole.png", "z.png"]
    for name in ("empty.png", "text.png", "cut.png"):
        assert f"failed: {folder / name}: expected" in outcome.err
    assert "1 files are no pictures by their suffix: notes.txt" in outcome.err
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
    work, calls = cli.save_image, []

    def fail_first(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise error
        work(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cli, "save_image", fail_first)
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


def test_too_large_a_result_is_refused_before_any_work(run: CommandLine, tmp_path: Path) -> None:
    outcome = run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out.png", "--scale", 5000)
    assert outcome.code == 1
    assert "expected at most" in outcome.err


# ---- usage ----


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


def test_help_names_every_option(run: CommandLine) -> None:
    outcome = run("upscale", "--help")
    assert outcome.code == 0
    for option in ("scale", "long-edge", "t", "realism", "tile", "overlap", "color", "checkpoint", "threads", "quiet"):
        assert f"--{option}" in outcome.out


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


def test_outputs_of_a_folder_never_collide(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif", "a.bmp", "a.PNG.gif", "b.TIFF", "c.jpeg"):
        (tmp_path / name).touch()
    targets = {job.source.name: job.target.name for job in plan_jobs(tmp_path, tmp_path.parent / "results").jobs}
    assert len({name.casefold() for name in targets.values()}) == len(targets) == 6
    assert targets["a.png"] == "a.png"
    assert targets["a.tif"] == "a.tif.png"
    assert targets["b.TIFF"] == "b.png"
    assert targets["c.jpeg"] == "c.jpeg"
    with pytest.raises(AlloSR2Error, match="not an input"):
        plan_jobs(tmp_path, tmp_path)


# ---- inspect ----


def test_inspect(run: CommandLine, tiny_checkpoint: Path) -> None:
    outcome = run("inspect", tiny_checkpoint)
    assert (outcome.code, outcome.err) == (0, "")
    for text in ("t_star: 0.22", "init: aligned", "steps: 12", "license: Apache-2.0", "allosr2.format: 1", "F16"):
        assert text in outcome.out
    for group in ("flow.*", "vae.*", "lora.transformer.*", "lora.vae_encoder.*", "snr_head.*"):
        assert group in outcome.out
    total = sum(tensor.numel() for tensor in load_checkpoint(tiny_checkpoint).tensors.values())
    assert f"{total:,} values" in outcome.out


def damaged_checkpoint(path: Path, good: Path, kind: str) -> Path:
    whole, tensors = good.read_bytes(), load_file(good)
    with safe_open(good, framework="pt") as file:
        metadata = file.metadata()
    if kind == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif kind == "newer":
        save_file(tensors, path, metadata=metadata | {"allosr2.format": "99"})
    elif kind == "nan":
        first = next(iter(tensors))
        save_file(tensors | {first: tensors[first] * float("nan")}, path, metadata=metadata)
    elif kind == "incomplete":
        tensors.pop(next(iter(tensors)))
        save_file(tensors, path, metadata=metadata)
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"hello" * 50, "truncated": whole[: len(whole) // 2]}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "there is none"),
        ("empty", "empty"),
        ("text", "expected a complete safetensors file"),
        ("truncated", "expected a complete safetensors file"),
        ("foreign", "expected an AlloSR2 checkpoint"),
        ("newer", "expected allosr2.format 1; got '99'"),
        ("nan", "finite"),
        ("incomplete", "missing"),
    ],
)
def test_bad_checkpoints_are_refused_with_the_reason(
    run: CommandLine, tmp_path: Path, tiny_checkpoint: Path, kind: str, reason: str
) -> None:
    path = damaged_checkpoint(tmp_path / "bad.safetensors", tiny_checkpoint, kind)
    inspected = run("inspect", path)
    assert inspected.code == 1
    assert "bad.safetensors: " in inspected.err
    assert reason in inspected.err
    outcome = run("upscale", write_photo(tmp_path / "in.png"), tmp_path / "out.png", "--checkpoint", path)
    assert outcome.code == 2
    assert reason in outcome.err
    assert not (tmp_path / "out.png").exists()


# ---- the progress bar, and the module as a program ----


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_draws_on_a_terminal_only() -> None:
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        progress = Progress(stream, 2)
        progress.begin("a.png")
        progress.expect(4)
        progress.tick()
        progress.end()
        progress.clear()
        assert (stream.getvalue() != "") is drawn
    silent = Terminal()
    Progress(silent, 2, enabled=False).begin("a.png")
    assert silent.getvalue() == ""


def test_progress_line() -> None:
    progress = Progress(io.StringIO(), 2)
    progress.begin("photo\x1b[31m.png")
    progress.expect(4)
    for _ in range(2):
        progress.tick()
    assert progress.line(200) == "[======                  ] 0/2 photo?[31m.png (2/4)"
    assert len(progress.line(20)) == 20
    progress.end()
    assert progress.line(200) == "[============            ] 1/2"


def test_every_expected_tick_comes(run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, ticks = [], []
    monkeypatch.setattr(Progress, "expect", lambda self, tiles: expected.append(tiles))
    monkeypatch.setattr(Progress, "tick", lambda self: ticks.append(1))
    source = write_photo(tmp_path / "in.png", 37, 21)
    for options in ((), ("--tile", 32, "--overlap", 8), ("--tile", 48, "--scale", 3.3)):
        expected.clear(), ticks.clear()
        assert run.upscale(source, tmp_path / "out.png", *options).code == 0
        assert expected == [len(ticks)]


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
