"""Files in and out, sizes, padding: what happens for every kind of picture."""

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

from allosr2_core import image as image_module
from allosr2_core.errors import AlloSR2Error
from allosr2_core.image import (
    MAX_EDGE,
    crop,
    load_image,
    pad_to_multiple,
    resize_bicubic,
    save_image,
    split_alpha,
    target_size,
)

SIZES = [(1, 1), (1, 7), (3, 5), (5, 3), (8, 8), (17, 31)]
edges = st.integers(1, 40)


def photo(height: int = 13, width: int = 21, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png16(values: np.ndarray, color_type: int, extra: bytes = b"") -> bytes:
    """A 16-bit PNG, made by hand: (H, W, C) uint16; color_type 0 grey, 2 RGB, 4 grey+alpha, 6 RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# ---- reading ----


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
def test_colour16_is_read_at_eight_bits_and_says_so(tmp_path: Path, color_type: int, channels: int) -> None:
    """Pillow hands out the top 8 bits of 16-bit colour; the loss is at most one 8-bit step and is reported."""
    values = np.random.default_rng(1).integers(0, 65536, (3, 5, channels), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png16(values, color_type=color_type))
    loaded = load_image(tmp_path / "a.png")
    assert "16 bits" in loaded.note
    red = torch.from_numpy(values[..., 0].astype(np.float32)) / 65535
    assert float((loaded.rgb_HWC[..., 0] - red).abs().max()) <= 1.0 / 255
    assert (loaded.alpha_HW is not None) == (channels in (2, 4))


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


# ---- writing ----


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


# ---- tensors ----


def test_split_alpha() -> None:
    rgba = torch.rand(2, 3, 5, 4)
    rgb, alpha = split_alpha(rgba)
    assert torch.equal(rgb, rgba[..., :3])
    assert alpha is not None
    assert torch.equal(alpha, rgba[..., 3])
    assert split_alpha(rgba[..., :3])[1] is None
    assert split_alpha(rgba[..., :1])[0].shape == (2, 3, 5, 3)
    for bad in (torch.rand(3, 5, 3), torch.rand(1, 3, 5, 2), torch.rand(0, 3, 5, 3)):
        with pytest.raises(AlloSR2Error, match="expected images"):
            split_alpha(bad)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((3, 5), 4, (12, 20)),
        ((1, 1), 1, (1, 1)),
        ((45, 35), 1.7, (77, 60)),  # 76.5 and 59.5: halves go up
        ((5, 15), 1.1, (6, 17)),  # 5.5 and 16.5
        ((101, 67), 2.5, (253, 168)),
        ((1, 3), 0.1, (1, 1)),  # never less than one pixel
    ],
)
def test_target_size_of_a_scale(size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert target_size(*size, scale=scale) == expected


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), edge=st.integers(1, 5000))
def test_target_size_of_a_long_edge(height: int, width: int, edge: int) -> None:
    new_height, new_width = target_size(height, width, long_edge=edge)
    assert max(new_height, new_width) == edge
    exact = min(height, width) * edge / max(height, width)
    assert min(new_height, new_width) == 1 or abs(min(new_height, new_width) - exact) <= 0.5


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"scale": 2.0, "long_edge": 64},
        {"scale": 0.0},
        {"scale": -1.0},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"scale": 1e9},
        {"long_edge": 0},
        {"long_edge": -4},
        {"long_edge": 10.5},
        {"long_edge": MAX_EDGE + 1},
        {"scale": 2000.0},
    ],
)
def test_target_size_refuses(arguments: dict) -> None:
    with pytest.raises(AlloSR2Error, match="expected"):
        target_size(40, 30, **arguments)
    with pytest.raises(AlloSR2Error, match="at least 1x1"):
        target_size(0, 30, scale=1.0)


@settings(max_examples=40, deadline=None)
@given(edges, edges, edges, edges)
def test_resize_any_size_to_any_size(height: int, width: int, new_height: int, new_width: int) -> None:
    pixels = torch.rand(2, height, width, 3)
    resized = resize_bicubic(pixels, new_height, new_width)
    assert resized.shape == (2, new_height, new_width, 3)
    assert 0.0 <= float(resized.min())
    assert float(resized.max()) <= 1.0
    flat = resize_bicubic(torch.full((1, height, width, 3), 0.3), new_height, new_width)
    assert float((flat - 0.3).abs().max()) < 1e-5
    if (height, width) == (new_height, new_width):
        assert torch.equal(resized, pixels)


def test_resize_to_the_same_size_is_the_identity() -> None:
    pixels = torch.rand(1, 7, 9, 3)
    assert torch.equal(resize_bicubic(pixels, 7, 9), pixels)
    with pytest.raises(AlloSR2Error, match="at least 1x1"):
        resize_bicubic(pixels, 0, 9)


@settings(max_examples=80, deadline=None)
@given(height=edges, width=edges, multiple=st.integers(1, 32), minimum=st.integers(0, 70))
def test_pad_then_crop_is_the_identity(height: int, width: int, multiple: int, minimum: int) -> None:
    pixels = torch.rand(1, height, width, 3)
    padded = pad_to_multiple(pixels, multiple, minimum)
    for old, new in zip((height, width), padded.shape[1:3], strict=True):
        assert new % multiple == 0
        assert new >= max(old, minimum)
        assert new < max(old, minimum) + multiple
    assert torch.equal(crop(padded, height, width), pixels)


@pytest.mark.parametrize(("edge", "multiple"), [(9, 8), (8, 5), (31, 16), (16, 16)])
def test_pad_is_numpy_reflection(edge: int, multiple: int) -> None:
    pixels = np.random.default_rng(0).random((1, edge, edge + 2, 3), dtype=np.float32)
    padded = pad_to_multiple(torch.from_numpy(pixels), multiple)
    missing = [(0, new - old) for new, old in zip(padded.shape, pixels.shape, strict=True)]
    assert np.array_equal(padded.numpy(), np.pad(pixels, missing, mode="reflect"))


def test_pad_of_one_pixel_and_of_two() -> None:
    assert pad_to_multiple(torch.full((1, 1, 1, 3), 0.7), 8).unique().tolist() == [pytest.approx(0.7)]
    row = torch.tensor([0.0, 1.0])[None, None, :, None]
    assert pad_to_multiple(row, 8)[0, 0, :, 0].tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    with pytest.raises(AlloSR2Error, match="multiple"):
        pad_to_multiple(row, 0)


def test_crop_refuses_to_enlarge() -> None:
    for size in ((4, 6), (0, 5), (3, 0)):
        with pytest.raises(AlloSR2Error, match="expected a crop"):
            crop(torch.rand(1, 3, 5, 3), *size)
