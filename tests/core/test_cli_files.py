"""`python -m allosr2_core upscale`: what is in the files: depth, grey, metadata, masks, strips, frames."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from allosr2_core.checkpoint.format import load_checkpoint
from allosr2_core.cli import picture as cli_picture
from allosr2_core.cli.compare import compare_strip
from allosr2_core.image.geometry import resize_bicubic
from allosr2_core.image.metadata import Metadata
from allosr2_core.image.read import load_image, read_header
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from tests.support.command_line import CommandLine
from tests.support.pictures import photo, png16, size, write_photo


def write_grey16(path: Path) -> Path:
    Image.fromarray(np.arange(126, dtype=np.uint16).reshape(9, 14) * 500).save(path)
    return path


def write_animation(path: Path, **options: object) -> Path:
    """Three frames that have nothing in common."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.fromarray(photo(9, 14, seed=k)) for k in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


# ---- depth and grey ----


@pytest.mark.parametrize("mode", ["L", "LA"])
@pytest.mark.parametrize("color", ["none", "lab", "wavelet"])
def test_grey_stays_one_channel(run: CommandLine, tmp_path: Path, mode: str, color: str) -> None:
    source = write_photo(tmp_path / "in.png", mode=mode)
    assert run.upscale(source, tmp_path / "out.png", "--color", color).code == 0
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.mode == mode
        assert picture.size == (56, 36)


def test_colours_stay_three_channels(run: CommandLine, tmp_path: Path) -> None:
    assert run.upscale(write_photo(tmp_path / "in.png"), tmp_path / "out.png").code == 0
    assert not read_header(tmp_path / "out.png").grey


@pytest.mark.parametrize(
    ("deep", "target", "options", "bits"),
    [
        (True, "out.png", (), 16),
        (True, "out.tif", (), 16),
        (True, "out.jpg", (), 8),
        (True, "out.webp", (), 8),
        (True, "out.png", ("--depth", "8"), 8),
        (False, "out.png", (), 8),
        (False, "out.png", ("--depth", "16"), 16),
        (False, "out.tif", ("--depth", "16"), 16),
    ],
)
def test_depth(run: CommandLine, tmp_path: Path, deep: bool, target: str, options: tuple, bits: int) -> None:
    source = write_grey16(tmp_path / "in.png") if deep else write_photo(tmp_path / "in.png", mode="L")
    outcome = run.upscale(source, tmp_path / target, *options)
    assert outcome.code == 0, outcome.err
    assert read_header(tmp_path / target).bits == bits
    assert ("16 bit" in outcome.out) == (bits == 16)


def test_sixteen_bits_of_colour(run: CommandLine, tmp_path: Path, tiny_checkpoint: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (9, 14, 3), dtype=np.uint16)
    (tmp_path / "in.png").write_bytes(png16(values, 2))
    assert run.upscale(tmp_path / "in.png", tmp_path / "out.png").code == 0
    expected = Pipeline.from_checkpoint(load_checkpoint(tiny_checkpoint)).upscale(
        load_image(tmp_path / "in.png").image_BHWC
    )
    written = load_image(tmp_path / "out.png").image_BHWC
    assert float((written - expected).abs().max()) <= 0.5 / 65535 + 1e-6


# ---- metadata ----


def test_metadata_is_kept_unless_stripped(run: CommandLine, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    with Image.open(write_photo(tmp_path / "plain.jpg")) as picture:
        picture.save(tmp_path / "in.jpg", exif=exif, dpi=(300, 300))
    for options, maker in (((), "maker"), (("--strip",), None)):
        assert run.upscale(tmp_path / "in.jpg", tmp_path / "out.jpg", *options).code == 0
        with Image.open(tmp_path / "out.jpg") as picture:
            assert picture.getexif().get(0x010F) == maker


def test_a_profile_the_pixels_need_is_never_stripped(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Metadata] = []
    real_load, real_save = cli_picture.load_image, cli_picture.save_image

    def load(path: Path, frame: int = 0) -> object:
        return replace(real_load(path, frame), metadata=Metadata(icc_profile=b"profile", comment=b"text"))

    def save(path: Path, rgb: torch.Tensor, alpha: torch.Tensor | None, options: object, metadata: Metadata) -> str:
        given.append(metadata)
        return real_save(path, rgb, alpha)

    monkeypatch.setattr(cli_picture, "load_image", load)
    monkeypatch.setattr(cli_picture, "save_image", save)
    source = write_photo(tmp_path / "in.png")
    for options in ((), ("--strip",)):
        assert run.upscale(source, tmp_path / "out.png", *options).code == 0
    assert given == [Metadata(icc_profile=b"profile", comment=b"text"), Metadata(icc_profile=b"profile")]


# ---- masks and strips ----


def test_mask(run: CommandLine, tmp_path: Path) -> None:
    source = write_photo(tmp_path / "in.png", 12, 16)
    values = np.zeros((12, 16), dtype=np.uint8)
    values[:, 8:] = 255
    Image.fromarray(values).save(tmp_path / "mask.png")
    for name, options in (("whole", ()), ("plain", ("--realism", 0)), ("out", ("--mask", tmp_path / "mask.png"))):
        assert run.upscale(source, tmp_path / f"{name}.png", *options).code == 0
    whole, masked = (load_image(tmp_path / f"{name}.png").rgb_HWC for name in ("whole", "out"))
    enlarged = resize_bicubic(load_image(source).image_BHWC, 48, 64)[0]
    assert float((masked[:, :24] - enlarged[:, :24]).abs().max()) <= 0.5 / 255 + 1e-5
    assert torch.equal(masked[:, 40:], whole[:, 40:])
    assert not torch.equal(masked[:, :24], whole[:, :24])


def test_compare(run: CommandLine, tmp_path: Path) -> None:
    source = write_photo(tmp_path / "in.png", 12, 16)
    assert run.upscale(source, tmp_path / "out.jpg", "--compare").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.compare.png", "out.jpg"]
    strip = load_image(tmp_path / "out.compare.png").rgb_HWC
    assert strip.shape == (48, 64 + 2 + 64, 3)
    enlarged = resize_bicubic(load_image(source).image_BHWC, 48, 64)[0]
    assert float((strip[:, :64] - enlarged).abs().max()) <= 0.5 / 255 + 1e-6
    assert run.upscale(source, tmp_path / "out.png").code == 0
    assert torch.equal(strip[:, 66:], load_image(tmp_path / "out.png").rgb_HWC)
    assert bool((strip[:, 64:66] == 1.0).all())


def test_a_strip_of_a_wide_picture_is_scaled_down() -> None:
    strip = compare_strip(torch.rand(1, 4, 1000, 4), torch.rand(1, 16, 4000, 4))
    assert tuple(strip.shape) == (1, 8, 4096, 4)
    assert tuple(compare_strip(torch.rand(1, 2, 5000, 3), torch.rand(1, 1, 2500, 3)).shape) == (1, 1, 4096, 3)


# ---- frames ----


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_animations_stay_animations(run: CommandLine, tmp_path: Path, suffix: str) -> None:
    source = write_animation(tmp_path / f"in{suffix}", duration=[100, 200, 300], loop=2)
    outcome = run.upscale(source, tmp_path / f"out{suffix}", "--compare")
    assert outcome.code == 0, outcome.err
    assert "3 frames" in outcome.out
    header = read_header(tmp_path / f"out{suffix}")
    assert (header.height, header.width, header.frames, header.animated, header.loop) == (36, 56, 3, True, 2)
    durations = [load_image(tmp_path / f"out{suffix}", frame=k).duration_ms for k in range(3)]
    assert durations == [100, 200, 300]
    assert size(tmp_path / "out.compare.png") == (36, 114)


def test_a_gif_in_a_folder_becomes_an_animated_webp(run: CommandLine, tmp_path: Path) -> None:
    write_animation(tmp_path / "in" / "a.gif", duration=80, loop=0)
    write_photo(tmp_path / "in" / "b.png").rename(tmp_path / "in" / "b.gif")
    assert run.upscale(tmp_path / "in", tmp_path / "out").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.webp", "b.png"]
    assert read_header(tmp_path / "out" / "a.webp").frames == 3


def test_pages_stay_pages(run: CommandLine, tmp_path: Path) -> None:
    pages = [Image.fromarray(photo(5 + k, 7, seed=k)) for k in range(2)]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    assert run.upscale(tmp_path / "in.tif", tmp_path / "out.tif").code == 0
    assert read_header(tmp_path / "out.tif").frames == 2
    shapes = [tuple(load_image(tmp_path / "out.tif", frame=k).rgb_HWC.shape) for k in range(2)]
    assert shapes == [(20, 28, 3), (24, 28, 3)]


def test_pages_of_several_kinds_get_one_that_holds_all(run: CommandLine, tmp_path: Path) -> None:
    pages = [Image.fromarray(photo(5, 7)[..., 0]), Image.fromarray(photo(5, 7)), Image.fromarray(photo(5, 7, 4))]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    assert run.upscale(tmp_path / "in.tif", tmp_path / "out.tif").code == 0
    written = [load_image(tmp_path / "out.tif", frame=k) for k in range(3)]
    assert [page.grey for page in written] == [False] * 3
    deep = [Image.fromarray(photo(5, 7)[..., 0]), Image.fromarray(np.full((5, 7), 30001, dtype=np.uint16))]
    deep[0].save(tmp_path / "deep.tif", save_all=True, append_images=deep[1:])
    outcome = run.upscale(tmp_path / "deep.tif", tmp_path / "out.tif")
    assert "2 frames  16 bit" in outcome.out
    last = load_image(tmp_path / "out.tif", frame=1)
    assert last.grey
    assert float((last.rgb_HWC - 30001 / 65535).abs().max()) <= 0.5 / 65535 + 1e-6  # flat: as it came


def test_frames_with_and_without_transparency(run: CommandLine, tmp_path: Path) -> None:
    opaque, clear = Image.new("RGBA", (14, 9), (200, 0, 0, 255)), Image.new("RGBA", (14, 9), (0, 0, 0, 0))
    opaque.save(tmp_path / "in.gif", save_all=True, append_images=[clear, opaque], disposal=2, duration=50)
    for suffix in (".png", ".webp", ".tif"):
        assert run.upscale(tmp_path / "in.gif", tmp_path / f"out{suffix}").code == 0
        least = []
        for number in range(3):
            alpha = load_image(tmp_path / f"out{suffix}", frame=number).alpha_HW
            least.append(1.0 if alpha is None else float(alpha.min()))
        assert least == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(("source", "target"), [("in.gif", "out.jpg"), ("in.tif", "out.png"), ("in.tif", "out.webp")])
def test_else_the_first_frame_is_taken_and_that_is_said(
    run: CommandLine, tmp_path: Path, source: str, target: str
) -> None:
    write_animation(tmp_path / source)
    outcome = run.upscale(tmp_path / source, tmp_path / target)
    assert outcome.code == 0
    assert "first of 3 frames" in outcome.err
    assert read_header(tmp_path / target).frames == 1


@pytest.mark.parametrize("options", [(), ("--t", "predicted"), ("--t", "0.3"), ("--t", "calibrated")])
def test_all_frames_of_an_animation_get_one_t(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    times: list[object] = []
    real = Pipeline.upscale

    def upscale(self: Pipeline, image: Tensor, options: UpscaleOptions, **given: Any) -> Tensor:
        times.append(options.t)
        return real(self, image, options, **given)

    monkeypatch.setattr(Pipeline, "upscale", upscale)
    assert run.upscale(write_animation(tmp_path / "in.gif"), tmp_path / "out.webp", *options).code == 0
    assert len(times) == 3
    assert len(set(times)) == 1
    assert times[0] not in (None, "predicted")


def test_a_bad_frame_leaves_no_file_and_no_folder(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = Pipeline.upscale

    def upscale(self: Pipeline, *args: object, **given: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return real(self, *args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "upscale", upscale)
    outcome = run.upscale(write_animation(tmp_path / "in.gif"), tmp_path / "new" / "deep" / "out.webp")
    assert outcome.code == 1
    assert f"failed: {tmp_path / 'in.gif'}: MemoryError" in outcome.err
    assert not (tmp_path / "new").exists()
