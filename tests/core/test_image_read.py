"""Reading files: what becomes of every kind of picture, and which files are refused."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image import geometry as image_module
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


def test_la_becomes_rgb_and_alpha(tmp_path: Path) -> None:
    pixels = photo(channels=2)
    Image.fromarray(pixels, mode=None).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.alpha_HW is not None
    assert torch.equal(loaded.alpha_HW, torch.from_numpy(pixels[..., 1]) / 255.0)
    assert torch.equal(loaded.rgb_HWC[..., 2], torch.from_numpy(pixels[..., 0]) / 255.0)


def test_palette_without_transparency_has_no_alpha(tmp_path: Path) -> None:
    picture = Image.fromarray(photo()).convert("P")
    picture.save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.alpha_HW is None
    assert torch.equal(loaded.rgb_HWC, torch.from_numpy(np.asarray(picture.convert("RGB")).copy()) / 255.0)


def test_transparent_palette_entry_becomes_alpha(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putdata([0, 1])
    picture.save(tmp_path / "a.png", transparency=1)
    loaded = load_image(tmp_path / "a.png")
    assert loaded.alpha_HW is not None
    assert loaded.alpha_HW.tolist() == [[1.0, 0.0]]
    assert loaded.rgb_HWC[0, 0].tolist() == [1.0, 0.0, 0.0]


def test_grey16_keeps_sixteen_bits(tmp_path: Path) -> None:
    values = np.arange(15, dtype=np.uint16).reshape(3, 5, 1) * 4369 // 3 + 1
    (tmp_path / "a.png").write_bytes(png16(values, color_type=0))
    loaded = load_image(tmp_path / "a.png")
    assert loaded.note == ""
    assert torch.equal(
        (loaded.rgb_HWC[..., 0] * 65535).round().int(), torch.from_numpy(values[..., 0].astype(np.int32))
    )
    assert torch.equal(loaded.rgb_HWC[..., 0], loaded.rgb_HWC[..., 2])


def test_grey16_colour_key_becomes_alpha(tmp_path: Path) -> None:
    values = np.array([[[300], [301]]], dtype=np.uint16)  # equal in their top 8 bits
    data = struct.pack(">H", 300)
    key = struct.pack(">I", 2) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))
    (tmp_path / "a.png").write_bytes(png16(values, color_type=0, extra=key))
    loaded = load_image(tmp_path / "a.png")
    assert loaded.alpha_HW is not None
    assert loaded.alpha_HW.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colour16_keeps_sixteen_bits(tmp_path: Path, color_type: int, channels: int) -> None:
    """Pillow hands out the top 8 bits of 16-bit colour; the others are asked for separately."""
    values = np.random.default_rng(1).integers(0, 65536, (3, 5, channels), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png16(values, color_type=color_type))
    loaded = load_image(tmp_path / "a.png")
    assert loaded.note == ""
    assert np.array_equal((loaded.rgb_HWC[..., 0] * 65535).round().numpy(), values[..., 0])
    assert (loaded.alpha_HW is not None) == (channels in (2, 4))
    if loaded.alpha_HW is not None:
        assert np.array_equal((loaded.alpha_HW * 65535).round().numpy(), values[..., -1])


def test_cmyk_jpeg_is_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)  # red ink
    loaded = load_image(tmp_path / "a.jpg")
    assert loaded.rgb_HWC.shape == (16, 16, 3)
    assert loaded.rgb_HWC.mean(dim=(0, 1)).tolist() == pytest.approx([1.0, 0.0, 0.0], abs=0.03)


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


def test_damaged_exif_keeps_the_picture(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7fgarbage")
    loaded = load_image(tmp_path / "a.jpg")
    assert loaded.rgb_HWC.shape == (13, 21, 3)
    assert "EXIF" in loaded.note


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], duration=100, **options)
    loaded = load_image(tmp_path / f"a{suffix}")
    assert loaded.rgb_HWC.shape == (3, 4, 3)
    assert loaded.rgb_HWC[0, 0].tolist() == [1.0, 0.0, 0.0]


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
    with pytest.raises(AlloSR2Error, match=r"a\.png: expected a complete image"):
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


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo(16, 16)).save(
        buffer, format=data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF"]))
    )
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "d.bin"
    path.write_bytes(bytes(damaged))
    try:
        loaded = load_image(path)
    except AlloSR2Error as error:
        assert "d.bin" in str(error)
    else:
        assert bool(torch.isfinite(loaded.rgb_HWC).all())


def test_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(photo(40, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(image_module, "MAX_PIXELS", 1999)
    with pytest.raises(AlloSR2Error, match=r"a\.png.*got 50x40"):
        load_image(tmp_path / "a.png")
