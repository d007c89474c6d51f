"""Writing files: what is kept in each format, what is refused, and that a failed save leaves nothing behind."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image import write as image_module
from allosr2_core.image.read import load_image
from allosr2_core.image.write import save_image
from tests.support.pictures import SIZES, photo


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [3, 4])
def test_png_round_trip_is_exact(tmp_path: Path, height: int, width: int, channels: int) -> None:
    pixels = torch.from_numpy(photo(height, width, channels)) / 255.0
    alpha = pixels[..., 3] if channels == 4 else None
    save_image(tmp_path / "a.png", pixels[..., :3], alpha)
    assert torch.equal(load_image(tmp_path / "a.png").image_BHWC[0], pixels)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


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
