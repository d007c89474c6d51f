"""Reading files: what becomes of every kind of picture, and which files are refused."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.read import load_image
from tests.support.pictures import SIZES, photo, png16


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_rgb_png_is_read_exactly(tmp_path: Path, height: int, width: int) -> None:
    pixels = photo(height, width)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.rgb_HWC.dtype == torch.float32
    assert loaded.alpha_HW is None
    assert loaded.note == ""
    assert torch.equal(loaded.rgb_HWC, torch.from_numpy(pixels) / 255.0)
    assert loaded.image_BHWC.shape == (1, height, width, 3)


def test_rgba_keeps_alpha(tmp_path: Path) -> None:
    pixels = photo(channels=4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.alpha_HW is not None
    assert torch.equal(loaded.alpha_HW, torch.from_numpy(pixels[..., 3]) / 255.0)
    assert torch.equal(loaded.rgb_HWC, torch.from_numpy(pixels[..., :3]) / 255.0)
    assert torch.equal(loaded.image_BHWC[0], torch.from_numpy(pixels) / 255.0)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(photo(channels=1)[..., 0]).convert(mode)
    picture.save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    grey = torch.from_numpy(np.asarray(picture.convert("L")).copy()) / 255.0
    assert loaded.alpha_HW is None
    assert torch.equal(loaded.rgb_HWC, grey[..., None].expand(-1, -1, 3))


def test_transparent_palette_entry_becomes_alpha(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putdata([0, 1])
    picture.save(tmp_path / "a.png", transparency=1)
    loaded = load_image(tmp_path / "a.png")
    assert loaded.alpha_HW is not None
    assert loaded.alpha_HW.tolist() == [[1.0, 0.0]]
    assert loaded.rgb_HWC[0, 0].tolist() == [1.0, 0.0, 0.0]


def test_grey16_colour_key_becomes_alpha(tmp_path: Path) -> None:
    values = np.array([[[300], [301]]], dtype=np.uint16)  # equal in their top 8 bits
    data = struct.pack(">H", 300)
    key = struct.pack(">I", 2) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))
    (tmp_path / "a.png").write_bytes(png16(values, color_type=0, extra=key))
    loaded = load_image(tmp_path / "a.png")
    assert loaded.alpha_HW is not None
    assert loaded.alpha_HW.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    """The same picture as Pillow's own exif_transpose, for JPEG and PNG."""
    from PIL import ImageOps

    stored = Image.fromarray(np.kron(photo(3, 5), np.ones((8, 8, 1), dtype=np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.jpg", "a.png"):
        stored.save(tmp_path / name, exif=exif)
        with Image.open(tmp_path / name) as opened:
            upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB")).copy()
        loaded = load_image(tmp_path / name)
        assert loaded.rgb_HWC.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))
        assert torch.equal(loaded.rgb_HWC, torch.from_numpy(upright) / 255.0)


def test_float_tiff_in_range_is_read_and_others_are_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 15, dtype=np.float32).reshape(3, 5)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert torch.equal(load_image(tmp_path / "a.tif").rgb_HWC[..., 1], torch.from_numpy(values))
    Image.fromarray(values * 3).save(tmp_path / "b.tif")
    with pytest.raises(AlloSR2Error, match=r"b\.tif.*0\.\.1, got 0\.\.3"):
        load_image(tmp_path / "b.tif")
    Image.fromarray(values * np.float32("nan")).save(tmp_path / "c.tif")
    with pytest.raises(AlloSR2Error, match=r"c\.tif"):
        load_image(tmp_path / "c.tif")


def test_missing_file_folder_empty_file(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match=r"none\.png: expected an image file, found nothing"):
        load_image(tmp_path / "none.png")
    with pytest.raises(AlloSR2Error, match="found a folder"):
        load_image(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(AlloSR2Error, match=r"empty\.png.*empty \(0 bytes\)"):
        load_image(tmp_path / "empty.png")


def test_text_named_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("this is not a picture\n" * 20)
    with pytest.raises(AlloSR2Error, match=r"a\.png: expected an image in a format Pillow reads"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.95])
def test_truncated_file(tmp_path: Path, file_format: str, kept: float) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo(64, 64)).save(buffer, format=file_format)
    path = tmp_path / "cut.bin"
    path.write_bytes(buffer.getvalue()[: max(1, int(len(buffer.getvalue()) * kept))])
    with pytest.raises(AlloSR2Error, match=r"cut\.bin: expected a complete image"):
        load_image(path)
