"""The table: every kind of TIFF and PNG is read with the right values, or refused with an error that says why."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.read import LoadedImage, load_image, read_header
from tests.support.awkward_pictures import chunk, packed_rows, png, tiff

H, W = 7, 19


def samples(channels: int, bits: int, seed: int = 3) -> np.ndarray:
    kind = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    values = np.random.default_rng(seed).integers(0, 1 << bits, (H, W, channels), dtype=np.int64)
    values[0, 0], values[0, 1] = 0, (1 << bits) - 1
    return values.astype(kind)


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    assert tuple(found.shape) == expected.shape
    assert float((found.double() - torch.from_numpy(expected.astype(np.float64))).abs().max()) < 2e-7


def loaded(tmp_path: Path, data: bytes, name: str = "a.tif") -> LoadedImage:
    (tmp_path / name).write_bytes(data)
    header = read_header(tmp_path / name)
    picture = load_image(tmp_path / name)
    assert (header.height, header.width) == tuple(picture.rgb_HWC.shape[:2])
    assert header.transparent == (picture.alpha_HW is not None)
    assert (header.bits, header.grey) == (picture.bits, picture.grey)
    return picture


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16, 32])
def test_tiff_grey(tmp_path: Path, bits: int, photometric: int, order: str) -> None:
    values = samples(1, bits)
    picture = loaded(tmp_path, tiff(values, bits, photometric, order=order, rows_per_strip=3))
    unit = values[..., 0] / ((1 << bits) - 1)
    close(picture.rgb_HWC[..., 0], 1 - unit if photometric == 0 else unit)
    assert torch.equal(picture.rgb_HWC[..., 0], picture.rgb_HWC[..., 2])
    assert picture.bits == (16 if bits > 8 else 8)
    assert picture.note == ""


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_float(tmp_path: Path, bits: int, channels: int, order: str) -> None:
    values = np.random.default_rng(0).random((H, W, channels)).astype(f"f{bits // 8}")
    picture = loaded(tmp_path, tiff(values, bits, 1 if channels == 1 else 2, order=order))
    close(picture.rgb_HWC[..., :channels], values.astype(np.float32))
    (tmp_path / "b.tif").write_bytes(tiff(values * 3, bits, 1 if channels == 1 else 2, order=order))
    with pytest.raises(AlloSR2Error, match=r"b\.tif.*0\.\.1"):
        load_image(tmp_path / "b.tif")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [(), (0,), (1,), (2,), (2, 0), (0, 2)])
@pytest.mark.parametrize("photometric", [0, 1, 2])
def test_tiff_alpha(tmp_path: Path, photometric: int, extra: tuple[int, ...], bits: int) -> None:
    """Unassociated (2) as it is, associated (1) divided out, unspecified (0) no alpha; without a word it is alpha."""
    colours = 3 if photometric == 2 else 1
    values = samples(colours + max(1, len(extra)), bits)
    top = (1 << bits) - 1
    unit = values / top
    at = {(): 0, (0,): None, (1,): 0, (2,): 0, (2, 0): 0, (0, 2): 1}[extra]
    picture = loaded(tmp_path, tiff(values, bits, photometric, extra=extra))
    rgb = unit[..., :colours]
    if extra == (1,):
        alpha = unit[..., colours:]
        rgb = np.clip(np.divide(rgb, alpha, out=np.zeros_like(rgb), where=alpha > 0), 0, 1)
    rgb = 1 - rgb if photometric == 0 else rgb
    close(picture.rgb_HWC, np.broadcast_to(rgb, (H, W, 3)))
    if at is None:
        assert picture.alpha_HW is None and "left out" in picture.note
    else:
        assert picture.alpha_HW is not None
        close(picture.alpha_HW, unit[..., colours + at])
        assert ("left out" in picture.note) == (len(extra) == 2)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16, 32])
def test_tiff_rgb(tmp_path: Path, bits: int) -> None:
    values = samples(3, bits)
    close(loaded(tmp_path, tiff(values, bits, 2)).rgb_HWC, values / ((1 << bits) - 1))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("layout", ["strips", "tiles", "planes", "plane tiles"])
@pytest.mark.parametrize(("compression", "predictor"), [(1, 1), (8, 1), (8, 2), (32773, 1)])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_layouts(tmp_path: Path, bits: int, compression: int, predictor: int, layout: str, order: str) -> None:
    values = samples(4, bits)
    data = tiff(
        values,
        bits,
        2,
        order=order,
        extra=(2,),
        compression=compression,
        predictor=predictor,
        planar="plane" in layout,
        tile=(16, 16) if "tiles" in layout else None,
        rows_per_strip=3,
    )
    picture = loaded(tmp_path, data)
    close(picture.image_BHWC[0], values / ((1 << bits) - 1))
    assert picture.note == ""


@pytest.mark.parametrize("name", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma", "tiff_deflate"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "RGB", "RGBA", "P", "CMYK"])
def test_tiff_compressions_of_libtiff(tmp_path: Path, mode: str, name: str) -> None:
    """What libtiff wrote is read as Pillow reads it (and 16 bits as they were put in)."""
    rng = np.random.default_rng(1)
    if mode == "I;16":
        values = rng.integers(0, 65536, (H, W), dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / "a.tif", compression=name)
        close(load_image(tmp_path / "a.tif").rgb_HWC[..., 1], values / 65535)
        return
    source = Image.fromarray(rng.integers(0, 256, (H, W, 4), dtype=np.uint8)).convert("RGBA")
    source = source.convert("RGB").convert(mode) if mode in ("CMYK", "P", "1") else source.convert(mode)
    source.save(tmp_path / "a.tif", compression=name)
    with Image.open(tmp_path / "a.tif") as opened:
        alpha = mode in ("LA", "RGBA")
        expected = np.asarray(opened.convert("RGBA" if alpha else "RGB")) / 255
    close(load_image(tmp_path / "a.tif").image_BHWC[0], expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", "<>")
def test_tiff_float_predictor(tmp_path: Path, order: str, channels: int) -> None:
    values = np.random.default_rng(0).random((H, W, channels)).astype(np.float32)
    data = tiff(values, 32, 1 if channels == 1 else 2, order=order, compression=8, predictor=3)
    close(loaded(tmp_path, data).rgb_HWC[..., :channels], values)


@pytest.mark.parametrize(("bits", "compression"), [(1, 1), (8, 1), (16, 1), (8, 8), (16, 32773)])
def test_tiff_reversed_bits(tmp_path: Path, bits: int, compression: int) -> None:
    values = samples(1, bits)
    data = tiff(values, bits, 1, reversed_bits=True, compression=compression)
    close(loaded(tmp_path, data).rgb_HWC[..., 0], values[..., 0] / ((1 << bits) - 1))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_palette(tmp_path: Path, bits: int) -> None:
    values = samples(1, bits)
    colours = np.random.default_rng(5).integers(0, 256, (1 << bits, 3))
    table = struct.pack(f"<{3 << bits}H", *(colours.T.reshape(-1) * 257).tolist())
    picture = loaded(tmp_path, tiff(values, bits, 3, tags={320: (3, 3 << bits, table)}))
    close(picture.rgb_HWC, colours[values[..., 0]] / 255)
    assert not picture.grey


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_cmyk(tmp_path: Path, bits: int) -> None:
    values = np.zeros((H, W, 4), dtype=np.uint8 if bits == 8 else np.uint16)
    values[:, :5, 0] = values[:, 5:10, 1] = values[:, 10:15, 3] = (1 << bits) - 1
    picture = loaded(tmp_path, tiff(values, bits, 5))
    assert picture.rgb_HWC[0, [0, 5, 10, 15]].tolist() == [[0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]]
    assert "CMYK" in picture.note and "without" in picture.note


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_tiff_ycbcr(tmp_path: Path, subsampling: tuple[int, int]) -> None:
    """Flat colours, so that the chroma of a block is that of its pixels; ITU-R BT.601 by hand."""
    across, down = subsampling
    rgb = np.array((200.0, 60.0, 40.0))
    y = rgb @ (0.299, 0.587, 0.114)
    unit = [round(y)] * (across * down) + [round(128 + (rgb[2] - y) / 1.772), round(128 + (rgb[0] - y) / 1.402)]
    units = np.tile(np.array(unit, dtype=np.uint8), (-(-H // down), -(-W // across), 1))
    data = tiff(units, 8, 6, compression=8)
    small, large = struct.pack("<I", units.shape[1]), struct.pack("<I", W)
    head = data.index(struct.pack("<HHI", 256, 4, 1) + small)
    data = data[: head + 8] + large + struct.pack("<HHI", 257, 4, 1) + struct.pack("<I", H) + data[head + 24 :]
    at = data.index(struct.pack("<HHI", 277, 3, 1))
    data = data[: at + 8] + struct.pack("<HH", 3, 0) + data[at + 12 :]
    at = data.index(struct.pack("<HHI", 278, 4, 1))
    data = data[: at + 8] + struct.pack("<I", H) + data[at + 12 :]
    at = data.index(struct.pack("<HHI", 317, 3, 1))  # the predictor's entry becomes YCbCrSubSampling
    data = data[:at] + data[at + 12 : at + 24] + struct.pack("<HHIHH", 530, 3, 2, across, down) + data[at + 24 :]
    if len(unit) > 3:  # one entry of BitsPerSample and SampleFormat for each of the three samples
        for tag in (258, 339):
            at = data.index(struct.pack("<HHI", tag, 3, len(unit)))
            data = data[: at + 4] + struct.pack("<I", 3) + data[at + 8 :]
    picture = loaded(tmp_path, data)
    assert float((picture.rgb_HWC * 255 - torch.tensor(rgb)).abs().max()) <= 1.5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(samples(1, 16).astype(np.int16), 16, 1, sample_format=2), "signed"),
        (tiff(samples(1, 32).astype(np.int32), 32, 1, sample_format=2), "signed"),
        (tiff(samples(1, 32), 32, 1, sample_format=6), "complex"),
        (tiff(samples(1, 8), 8, 4), "a mask"),
        (tiff(samples(1, 16), 16, 32803), "camera raw"),
        (tiff(samples(3, 8), 8, 10), "ITU Lab"),
        (tiff(samples(3, 16), 16, 32845), "LogLuv"),
        (tiff(samples(1, 8), 8, 3), "palette"),
        (tiff(samples(3, 16), 16, 6), "16 bits of YCbCr"),
        (tiff(samples(3, 8), 8, 6), "YCbCr, compression 1"),
        (tiff(samples(3, 8), 8, 2, tags={50706: (1, 4, b"\1\4\0\0")}), "DNG"),
        (tiff(samples(1, 8), 8, 2), "1 samples"),
        (tiff(samples(3, 8), 8, 2, compression=32766), "compression 32766"),
    ],
)
def test_tiff_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(AlloSR2Error, match=rf"a\.tif.*({reason})"):
        load_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize("compression", [1, 8, 32773])
def test_tiff_cut_off(tmp_path: Path, compression: int, kept: float) -> None:
    """The directory first, as a program that streams would write it."""
    data = tiff(samples(3, 8), 8, 2, compression=compression)
    start = struct.unpack_from("<I", data, 4)[0]
    moved = data[:4] + struct.pack("<I", 8) + data[start:] + data[8:start]
    (tmp_path / "a.tif").write_bytes(moved[: int(len(moved) * kept)])
    with pytest.raises(AlloSR2Error, match=r"a\.tif"):
        load_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("colour_type", "bits", "key"),
    [
        (t, b, key)
        for t, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items()
        for b in depths
        for key in (False, True)
        if not (key and t in (4, 6))  # no tRNS beside an alpha channel
    ],
)
def test_png(tmp_path: Path, colour_type: int, bits: int, key: bool) -> None:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    values = samples(channels, bits)
    top = (1 << bits) - 1
    extra, alpha = b"", None
    if colour_type == 3:
        colours = np.random.default_rng(5).integers(0, 256, (1 << bits, 3), dtype=np.uint8)
        extra = chunk(b"PLTE", colours.tobytes())
        rgb = colours[values[..., 0]] / 255
        if key:
            alphas = np.arange(1 << bits, dtype=np.uint8)[::-1]
            extra += chunk(b"tRNS", alphas.tobytes())
            alpha = alphas[values[..., 0]] / 255
    else:
        rgb = np.broadcast_to(values[..., : 3 if channels > 2 else 1] / top, (H, W, 3))
        if key:
            transparent = values[2, 3]
            extra = chunk(b"tRNS", transparent.astype(">u2").tobytes())
            alpha = (values != transparent).any(axis=-1).astype(float)
        elif channels in (2, 4):
            alpha = values[..., -1] / top
    picture = loaded(tmp_path, png(values, bits, colour_type, extra), "a.png")
    close(picture.rgb_HWC, rgb)
    if alpha is None:
        assert picture.alpha_HW is None
    else:
        assert picture.alpha_HW is not None
        close(picture.alpha_HW, alpha)
    assert picture.bits == (16 if bits == 16 else 8)
    assert picture.note == ""


@pytest.mark.parametrize(
    ("colour_type", "bits"), [(0, 1), (0, 4), (0, 16), (2, 8), (2, 16), (3, 2), (4, 8), (4, 16), (6, 8), (6, 16)]
)
def test_png_interlaced(tmp_path: Path, colour_type: int, bits: int) -> None:
    """Adam7: the same values as from the file without it."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    values = samples(channels, bits)
    palette = chunk(b"PLTE", bytes(range(3 << bits))) if colour_type == 3 else b""
    (tmp_path / "plain.png").write_bytes(png(values, bits, colour_type, palette))
    rows = b""
    for top, left, down, across in (
        *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4)),
        *((0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
    ):
        some = values[top::down, left::across]
        if some.size:
            rows += b"".join(b"\0" + row for row in packed_rows(some.reshape(len(some), -1), bits))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, bits, colour_type, 0, 0, 1))
    data = b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "adam7.png").write_bytes(data)
    plain, woven = load_image(tmp_path / "plain.png"), load_image(tmp_path / "adam7.png")
    assert torch.equal(plain.image_BHWC, woven.image_BHWC)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_fax(tmp_path: Path, compression: str, photometric: int) -> None:
    values = np.random.default_rng(0).integers(0, 2, (H, 32)).astype(bool)
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression, tiffinfo={262: photometric})
    with Image.open(tmp_path / "a.tif") as opened:
        assert opened.tag_v2[262] == photometric
    picture = load_image(tmp_path / "a.tif")
    close(picture.rgb_HWC[..., 0], values)
    assert picture.grey and picture.bits == 8


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_in_tiff(tmp_path: Path, mode: str) -> None:
    flat = Image.new("RGB", (32, 24), (200, 60, 40)).convert(mode)
    flat.save(tmp_path / "a.tif", compression="jpeg", quality=95)
    expected = np.asarray(flat.convert("RGB"))[0, 0] / 255
    picture = load_image(tmp_path / "a.tif")
    assert np.abs(picture.rgb_HWC[12, 16].numpy() - expected).max() < 0.02
    assert picture.grey == (mode == "L")
