"""Writing files: what is kept in each format, what is refused, and that a failed save leaves nothing behind."""

import io
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image import write as image_module
from allosr2_core.image.read import load_image
from allosr2_core.image.write import SaveOptions, check_writable, save_image
from tests.support.pictures import SIZES, photo


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.TIFF"])
def test_lossless_round_trip_is_exact(tmp_path: Path, height: int, width: int, channels: int, name: str) -> None:
    pixels = torch.from_numpy(photo(height, width, channels)) / 255.0
    alpha = pixels[..., 3] if channels == 4 else None
    save_image(tmp_path / name, pixels[..., :3], alpha)
    assert torch.equal(load_image(tmp_path / name).image_BHWC[0], pixels)
    with Image.open(tmp_path / name) as opened:
        assert np.array_equal(np.asarray(opened), photo(height, width, channels))
        if opened.format == "TIFF":
            assert opened.tag_v2[259] == 8  # deflate
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy_formats_are_close(tmp_path: Path, suffix: str) -> None:
    ramp = torch.linspace(0, 1, 32)[None, :, None].expand(24, 32, 3)
    save_image(tmp_path / f"a{suffix}", ramp)
    assert float((load_image(tmp_path / f"a{suffix}").rgb_HWC - ramp).abs().max()) < 0.06


def test_webp_keeps_alpha_jpeg_refuses_it(tmp_path: Path) -> None:
    rgb, alpha = torch.rand(6, 7, 3), torch.linspace(0, 1, 42).reshape(6, 7)
    save_image(tmp_path / "a.webp", rgb, alpha)
    loaded = load_image(tmp_path / "a.webp")
    assert loaded.alpha_HW is not None
    assert float((loaded.alpha_HW - alpha).abs().max()) <= 0.5 / 255 + 1e-6
    with pytest.raises(AlloSR2Error, match="JPEG cannot store transparency"):
        save_image(tmp_path / "a.jpg", rgb, alpha)
    save_image(tmp_path / "a.jpg", rgb, torch.ones(6, 7))  # opaque: nothing is lost
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jpg", "a.webp"]


def test_values_are_rounded_and_clamped(tmp_path: Path) -> None:
    values = torch.tensor([-0.5, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0, 7.0])
    save_image(tmp_path / "a.png", values[None, :, None].expand(1, 7, 3))
    assert np.asarray(Image.open(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255, 255]


@pytest.mark.parametrize(
    ("name", "pixels", "reason"),
    [
        ("a.bmp", torch.zeros(2, 2, 3), "expected one of"),
        ("a", torch.zeros(2, 2, 3), "no suffix"),
        ("a.png", torch.zeros(2, 2, 4), "expected pixels"),
        ("a.png", torch.zeros(2, 0, 3), "expected pixels"),
        ("a.png", torch.full((2, 2, 3), float("nan")), "finite"),
        ("missing/a.png", torch.zeros(2, 2, 3), "could not be written"),
    ],
)
def test_save_refuses(tmp_path: Path, name: str, pixels: torch.Tensor, reason: str) -> None:
    with pytest.raises(AlloSR2Error, match=reason):
        save_image(tmp_path / name, pixels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["save", "replace"])
def test_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    path = tmp_path / "a.png"
    save_image(path, torch.zeros(2, 2, 3))
    before = path.read_bytes()

    def half_then_fail(self: Image.Image, file: io.BufferedWriter, **_: object) -> None:
        file.write(b"half a picture")
        raise OSError("no space left on device")

    def fail(*_: object) -> None:
        raise OSError("not permitted")

    if failing == "save":
        monkeypatch.setattr(Image.Image, "save", half_then_fail)
    else:
        monkeypatch.setattr(image_module.os, "replace", fail)
    with pytest.raises(AlloSR2Error, match="could not be written"):
        save_image(path, torch.ones(2, 2, 3))
    assert path.read_bytes() == before
    with pytest.raises(AlloSR2Error):
        save_image(tmp_path / "new.png", torch.ones(2, 2, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_interrupted_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Image.Image, file: io.BufferedWriter, **_: object) -> None:
        file.write(b"half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_image(tmp_path / "a.png", torch.ones(2, 2, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_quality(tmp_path: Path, suffix: str) -> None:
    pixels = torch.from_numpy(photo(64, 64)) / 255.0
    sizes = []
    for quality in (10, 95, 100):
        save_image(tmp_path / f"a{suffix}", pixels, options=SaveOptions(quality=quality))
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)
    assert sizes[0] < 0.6 * sizes[1] < sizes[1] < sizes[2]
    save_image(tmp_path / f"b{suffix}", pixels)
    assert (tmp_path / f"b{suffix}").stat().st_size == sizes[1]
    for options in (SaveOptions(quality=0), SaveOptions(quality=101), SaveOptions(bits=12)):
        with pytest.raises(AlloSR2Error, match="quality of 1 to 100"):
            save_image(tmp_path / f"b{suffix}", pixels, options=options)


def test_jpeg_keeps_all_chroma_and_webp_hidden_colours(tmp_path: Path) -> None:
    save_image(tmp_path / "a.jpg", torch.rand(16, 16, 3))
    with Image.open(tmp_path / "a.jpg") as opened:
        assert [layer[1:3] for layer in opened.layer] == [(1, 1)] * 3
    rgb = torch.zeros(16, 16, 3)
    rgb[..., 0] = 1.0
    save_image(tmp_path / "a.webp", rgb, torch.zeros(16, 16))
    assert float((load_image(tmp_path / "a.webp").rgb_HWC - rgb).abs().max()) < 0.02


@pytest.mark.parametrize("length", [241, 250, 255])
@pytest.mark.parametrize("letter", ["y", "\N{LATIN SMALL LETTER U WITH DIAERESIS}", "\N{GRINNING FACE}"])
def test_long_names(tmp_path: Path, length: int, letter: str) -> None:
    """As long as the file system takes, in bytes."""
    bytes_each = len(letter.encode())
    stem = letter * ((length - 4) // bytes_each)
    path = tmp_path / (stem + "x" * (length - 4 - len(stem.encode())) + ".png")
    assert len(os.fsencode(path.name)) == length
    save_image(path, torch.rand(2, 3, 3))
    assert load_image(path).rgb_HWC.shape == (2, 3, 3)
    assert list(tmp_path.iterdir()) == [path]
    longer = path.with_name("x" * (256 - length) + path.name)
    with pytest.raises(AlloSR2Error, match="at most 255 bytes, got 256"):
        save_image(longer, torch.rand(2, 3, 3))
    with pytest.raises(AlloSR2Error, match="at most 255 bytes, got 256"):
        check_writable(longer, 2, 3, transparent=False)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target.data", tmp_path / "link.png"
    if exists:
        target.write_bytes(b"older")
    link.symlink_to("elsewhere/target.data")
    save_image(link, torch.ones(2, 3, 3))
    assert link.is_symlink() and not target.is_symlink()
    assert target.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["elsewhere", "link.png", "target.data"]


def test_what_cannot_be_replaced(tmp_path: Path) -> None:
    """A link in a circle, a folder, a device behind a link: refused and left as they are."""
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("circle.png", "folder.png", "device.png", "pipe.png"):
        with pytest.raises(AlloSR2Error, match=f"{name}: could not be written"):
            save_image(tmp_path / name, torch.ones(2, 3, 3))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 4


def test_the_first_error_is_the_one_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when the unfinished file cannot be removed either."""

    def fail(self: Path, missing_ok: bool = False) -> None:
        raise OSError("cannot remove")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "unlink", fail)
    monkeypatch.setattr(image_module.os, "fsync", full)
    with pytest.raises(AlloSR2Error, match="no space left on device"):
        save_image(tmp_path / "a.png", torch.ones(2, 3, 3))
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("name", "size", "settings", "reason"),
    [
        ("a.gif", (9, 9), {}, "expected one of .png, .jpg, .jpeg, .webp, .tif, .tiff"),
        ("a.jpg", (9, 9), {"transparent": True}, "JPEG cannot store transparency"),
        ("a.webp", (9, 16384), {}, "WEBP can have 16383 px an edge, the result has 16384x9"),
        ("a.webp", (16384, 9), {}, "WEBP can have 16383"),
        ("a.jpeg", (9, 65501), {}, "JPEG can have 65500"),
        ("a.jpg", (9, 9), {"bits": 16}, "JPEG has 8 bits"),
        ("a.webp", (9, 9), {"bits": 16}, "WEBP has 8 bits"),
        ("a.png", (9, 9), {"bits": 12}, "8 or 16 bits"),
        ("a.png", (65535, 9), {"bits": 16, "transparent": True}, ""),
        ("a.tif", (65535, 9), {"bits": 16, "transparent": True, "frames": 7}, ""),
        ("a.webp", (16383, 16383), {"transparent": True, "frames": 7, "animated": True}, ""),
        ("a.JPG", (65500, 9), {"transparent": False}, ""),
    ],
)
def test_check_writable(name: str, size: tuple[int, int], settings: dict[str, bool], reason: str) -> None:
    arguments = {"transparent": False, **settings}
    if reason:
        with pytest.raises(AlloSR2Error, match=f"{name}.*{reason}"):
            check_writable(name, *size, **arguments)
    else:
        check_writable(name, *size, **arguments)


@pytest.mark.parametrize(("name", "edge"), [("a.webp", 16383), ("a.jpg", 65500)])
def test_the_longest_edge_can_be_written(tmp_path: Path, name: str, edge: int) -> None:
    save_image(tmp_path / name, torch.rand(2, edge, 3))
    assert load_image(tmp_path / name).rgb_HWC.shape == (2, edge, 3)


def test_greys_stay_grey_in_webp(tmp_path: Path) -> None:
    """Lossy WebP would round them off grey."""
    grey = torch.linspace(0, 1, 48 * 40).reshape(48, 40, 1).expand(48, 40, 3)
    save_image(tmp_path / "grey.webp", grey)
    with Image.open(tmp_path / "grey.webp") as picture:
        found = np.asarray(picture.convert("RGB")).astype(int)
    assert (found == found[..., :1]).all() and len(np.unique(found)) == 256
