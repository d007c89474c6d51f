"""From file to file with the embedded checkpoint: the values a viewer shows are the right ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from allosr2_core.cli.main import main
from tests.support.awkward_pictures import rgb_profile, srgb_curve

P3_COLUMNS = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))


def upscaled(source: Path, name: str = "out.png", *options: object) -> Image.Image:
    """The result of `upscale`, which must succeed."""
    target = source.parent / name
    assert main(["upscale", str(source), str(target), "--quiet", *map(str, options)]) == 0
    with Image.open(target) as picture:
        picture.load()
        return picture


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)], ids=str)
def test_flat_colours_stay(tmp_path: Path, color: tuple[int, int, int], scale: int) -> None:
    Image.new("RGB", (32, 24), color).save(tmp_path / "in.png")
    found = np.asarray(upscaled(tmp_path / "in.png", "out.png", "--scale", scale).convert("RGB")).astype(int)
    assert found.shape == (24 * scale, 32 * scale, 3) and np.abs(found - color).max() <= 1


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_hidden_colours_leave_no_fringe(tmp_path: Path, hidden: int, suffix: str) -> None:
    rows, columns = np.mgrid[0:48, 0:48]
    alpha = np.clip(16.5 - np.hypot(rows - 23.5, columns - 23.5), 0, 1) * 255
    rgb = np.where(alpha[..., None] > 0, (230, 40, 40), hidden)
    Image.fromarray(np.dstack([rgb, alpha]).astype(np.uint8)).save(tmp_path / "in.png")
    found = np.asarray(upscaled(tmp_path / "in.png", f"out{suffix}").convert("RGBA")).astype(float)
    share = found[..., 3:] / 255
    assert 0.2 < float(share.mean()) < 0.5
    for paper in (0, 255):
        shown, wanted = (share * color + (1 - share) * paper for color in (found[..., :3], np.array([230, 40, 40])))
        assert np.abs(shown - wanted).max() <= 5


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_grey_text_stays_grey(tmp_path: Path, suffix: str) -> None:
    text = Image.new("L", (120, 40), 255)
    ImageDraw.Draw(text).text((4, 10), "Hamburgefons 0123", fill=0)
    text.save(tmp_path / "in.jpg", quality=40)
    result = upscaled(tmp_path / "in.jpg", f"out{suffix}")
    found = np.asarray(result.convert("RGB")).astype(int)
    assert (found == found[..., :1]).all() and found.std() > 20
    assert result.mode == ("RGB" if suffix == ".webp" else "L")  # WebP has no grey


def test_a_display_p3_picture_keeps_its_look(tmp_path: Path) -> None:
    """(200, 60, 40) of Display P3 is (217, 42, 23) in sRGB, by the published matrix."""
    flat = Image.new("RGB", (40, 40), (200, 60, 40))
    flat.save(tmp_path / "in.png", icc_profile=rgb_profile("Display P3", P3_COLUMNS, srgb_curve()))
    result = upscaled(tmp_path / "in.png")
    assert "icc_profile" not in result.info
    assert np.abs(np.asarray(result.convert("RGB")).astype(int) - (217, 42, 23)).max() <= 2


def test_a_deep_ramp_keeps_more_than_eight_bits(tmp_path: Path) -> None:
    ramp = np.linspace(20000, 30000, 64 * 48).reshape(48, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "in.png")
    result = np.asarray(upscaled(tmp_path / "in.png"))
    assert result.dtype == np.uint16 and result.shape == (192, 256)
    assert len(np.unique(result // 256)) < 60 < len(np.unique(result)) / 10
    assert abs(float(result.mean()) - float(ramp.mean())) < 100


def test_what_the_file_says_is_in_the_result(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Canon", 6  # maker; turned
    exif.get_ifd(0x8825)[1], exif.get_ifd(0x8825)[2] = "N", (48.0, 51.0, 29.0)
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", '{"nodes": []}')
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))
    picture.save(tmp_path / "in.png", exif=exif, pnginfo=text, dpi=(300, 300))
    kept = upscaled(tmp_path / "in.png")
    assert kept.size == (48, 80)  # upright
    found = kept.getexif()
    assert found[0x010F] == "Canon" and found.get(0x0112, 1) == 1
    assert found.get_ifd(0x8825)[2] == (48.0, 51.0, 29.0)
    assert kept.info["workflow"] == '{"nodes": []}' and kept.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    stripped = upscaled(tmp_path / "in.png", "bare.png", "--strip")
    assert not stripped.getexif() and "workflow" not in stripped.info and "dpi" not in stripped.info
