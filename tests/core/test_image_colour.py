"""Colours: what a profile or a gamma says is applied, and the numbers are those of the published formulas."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from allosr2_core.image.read import load_image
from allosr2_core.image.write import SaveOptions, save_image
from tests.support.awkward_pictures import (
    ADOBE_COLUMNS,
    P3_COLUMNS,
    SRGB_COLUMNS,
    chunk,
    cmyk_profile,
    gamma_curve,
    grey_profile,
    png,
    rgb_profile,
    srgb_curve,
    table_curve,
    tiff,
)

P3 = rgb_profile("Display P3", P3_COLUMNS, srgb_curve())
ADOBE = rgb_profile("Adobe RGB", ADOBE_COLUMNS, gamma_curve(2.19921875))
GREY = grey_profile("Gray Gamma 1.8", gamma_curve(1.80078125))
DOT_GAIN = grey_profile("Dot Gain", table_curve([0, 0.05, 0.12, 0.22, 0.34, 0.48, 0.64, 0.81, 1]))
# Linear RGB -> linear sRGB, as published (both spaces have the white of sRGB).
TO_SRGB = {
    "p3": ((1.2249402, -0.2249402, 0), (-0.0420570, 1.0420570, 0), (-0.0196376, -0.0786361, 1.0982736)),
    "adobe": ((1.3982832, -0.3982832, 0), (0, 1, 0), (0, -0.0429383, 1.0429383)),
}
# Inside sRGB, so that nothing is clipped.
PATCHES = np.array(
    [(200, 100, 90), (90, 160, 100), (80, 90, 170), (128, 128, 128), (30, 25, 20), (240, 235, 220), (150, 120, 60)],
    dtype=np.uint8,
)


def decode(v: np.ndarray) -> np.ndarray:
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def encode(v: np.ndarray) -> np.ndarray:
    v = np.clip(v, 0, 1)
    return np.where(v <= 0.0031308, v * 12.92, 1.055 * v ** (1 / 2.4) - 0.055)


def lab(srgb: np.ndarray) -> np.ndarray:
    matrix = np.array(
        ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
    )
    xyz = decode(srgb) @ matrix.T / matrix.sum(axis=1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack((116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])), axis=-1)


def delta_e(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(lab(found.double().numpy()) - lab(expected), axis=-1).max())


@pytest.mark.parametrize(("space", "profile"), [("p3", P3), ("adobe", ADOBE)])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg", ".avif"])
def test_rgb_profile(tmp_path: Path, space: str, profile: bytes, suffix: str) -> None:
    pixels = PATCHES.repeat(16, axis=0).repeat(16, axis=0).reshape(-1, 16, 3)
    lossy = {".jpg": {"quality": 100, "subsampling": 0}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}
    settings = {".webp": {"lossless": True}, **lossy}.get(suffix, {})
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", icc_profile=profile, **settings)
    unit = PATCHES / 255
    light = decode(unit) if space == "p3" else unit**2.19921875
    expected = encode(light @ np.array(TO_SRGB[space]).T)
    loaded = load_image(tmp_path / f"a{suffix}")
    tolerance = {".jpg": 2.0, ".avif": 3.0}.get(suffix, 1.0)
    assert delta_e(loaded.rgb_HWC[8::16, 8], expected) <= tolerance
    assert delta_e(torch.from_numpy(unit), expected) > 2  # what no conversion would have given
    assert ("Display P3" if space == "p3" else "Adobe RGB") in loaded.note
    assert loaded.metadata.icc_profile == b""


@pytest.mark.parametrize("kind", ["own", "lcms", "named wrongly"])
def test_srgb_profile_changes_nothing(tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    profile = {
        "own": rgb_profile("sRGB", SRGB_COLUMNS, srgb_curve()),
        "lcms": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "named wrongly": rgb_profile("Display P3", SRGB_COLUMNS, srgb_curve()),
    }[kind]
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    loaded = load_image(tmp_path / "a.png")
    assert torch.equal(loaded.rgb_HWC, torch.from_numpy(pixels) / 255.0)
    assert loaded.note == ""
    Image.fromarray(pixels).save(tmp_path / "b.png", icc_profile=rgb_profile("sRGB", P3_COLUMNS, srgb_curve()))
    assert not torch.equal(load_image(tmp_path / "b.png").rgb_HWC, loaded.rgb_HWC)


@pytest.mark.parametrize(("profile", "curve"), [(GREY, "gamma"), (DOT_GAIN, "table")])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_profile(tmp_path: Path, profile: bytes, curve: str, alpha: bool, bits: int) -> None:
    values = np.linspace(0, (1 << bits) - 1, 64).astype(f"u{bits // 8}").reshape(4, 16, 1)
    stored = np.concatenate((values, values[::-1]), axis=-1) if alpha else values
    extra = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))
    (tmp_path / "a.png").write_bytes(png(stored, bits, 4 if alpha else 0, extra))
    unit = values[..., 0] / ((1 << bits) - 1)
    table = [0, 0.05, 0.12, 0.22, 0.34, 0.48, 0.64, 0.81, 1]
    light = unit**1.80078125 if curve == "gamma" else np.interp(unit, np.linspace(0, 1, 9), table)
    loaded = load_image(tmp_path / "a.png")
    rgb = loaded.rgb_HWC
    assert torch.equal(rgb[..., 0], rgb[..., 1]) and torch.equal(rgb[..., 0], rgb[..., 2])
    assert np.abs(rgb[..., 0].numpy() - encode(light)).max() < 1e-4  # curves are stored in 16 bits
    assert "greys converted" in loaded.note and loaded.grey and loaded.bits == bits
    if alpha:
        assert loaded.alpha_HW is not None
        assert np.abs(loaded.alpha_HW.numpy() - unit[::-1]).max() < 1e-6
    if bits == 8 and not alpha:  # and LittleCMS agrees
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        exactly = ImageCms.Flags.NOOPTIMIZE
        transform = ImageCms.buildTransform(source, target, "L", "RGB", renderingIntent=1, flags=exactly)
        theirs = np.asarray(ImageCms.applyTransform(Image.fromarray(values[..., 0]), transform))
        assert np.abs(theirs[..., 1] - rgb[..., 1].numpy() * 255).max() <= 1.5


def test_grey_profile_that_is_srgb(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=grey_profile("sGray", srgb_curve()))
    loaded = load_image(tmp_path / "a.png")
    assert torch.equal(loaded.rgb_HWC[..., 0], torch.from_numpy(values) / 255.0)
    assert loaded.note == ""


def test_grey_with_an_rgb_profile_stays_grey(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.jpg", quality=100, icc_profile=ADOBE)
    rgb = load_image(tmp_path / "a.jpg").rgb_HWC
    assert torch.equal(rgb[..., 0], rgb[..., 1]) and torch.equal(rgb[..., 0], rgb[..., 2])
    expected = encode((values / 255) ** 2.19921875)
    assert np.abs(rgb[..., 0].numpy() - expected).max() < 3 / 255


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_by_its_profile(tmp_path: Path, suffix: str) -> None:
    corners = [(0.0, 0.0, 0.0)] * 16
    corners[0b0000], corners[0b1000], corners[0b0100] = (100, 0, 0), (62, -14, -28), (55, 55, 10)
    inks = np.array([(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 255)], dtype=np.uint8)
    pixels = inks.repeat(16, axis=0)[:, None].repeat(16, axis=1)
    picture = Image.frombytes("CMYK", (16, 64), pixels.tobytes())
    profile = cmyk_profile("Test Press", corners)
    settings = {"quality": 100} if suffix == ".jpg" else {}
    picture.save(tmp_path / f"a{suffix}", icc_profile=profile, **settings)
    loaded = load_image(tmp_path / f"a{suffix}")
    found = lab_d50(loaded.rgb_HWC[8::16, 8].double().numpy())
    wanted = np.array([corners[0], corners[0b1000], corners[0b0100], corners[1]])
    assert np.linalg.norm(found - wanted, axis=-1).max() < 1.5
    assert "Test Press" in loaded.note
    picture.save(tmp_path / f"b{suffix}", **settings)
    plain = load_image(tmp_path / f"b{suffix}")
    assert "without a colour profile" in plain.note
    assert float((plain.rgb_HWC[24, 8] - torch.tensor((0.0, 1.0, 1.0))).abs().max()) < 0.03


def test_black_of_a_profile_becomes_black(tmp_path: Path) -> None:
    """Black point compensation: the darkest ink, L 12, is the darkest a screen has, and white stays white."""
    corners = [(12.0, 0.0, 0.0)] * 16
    corners[0] = (100, 0, 0)
    inks = np.array([[(0, 0, 0, 0), (255, 255, 255, 255)]], dtype=np.uint8)
    picture = Image.frombytes("CMYK", (2, 1), inks.tobytes())
    picture.save(tmp_path / "a.tif", icc_profile=cmyk_profile("Test Scanner", corners, b"scnr"))
    assert (load_image(tmp_path / "a.tif").rgb_HWC[0, :, 0] * 255).tolist() == pytest.approx([255, 0], abs=2)


def lab_d50(srgb: np.ndarray) -> np.ndarray:
    """Published Bradford matrix of sRGB under D50."""
    matrix = np.array(
        ((0.4360747, 0.3850649, 0.1430804), (0.2225045, 0.7168786, 0.0606169), (0.0139322, 0.0971045, 0.7141733))
    )
    xyz = decode(srgb) @ matrix.T / matrix.sum(axis=1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack((116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])), axis=-1)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [8, 9])
def test_lab_tiff(tmp_path: Path, photometric: int, bits: int) -> None:
    wanted = np.array([(60.0, 25.0, 20.0), (40.0, -20.0, 15.0), (70.0, 5.0, -25.0), (50.0, 0.0, 0.0)])
    step, white = (1, 255) if bits == 8 else (256, 65535 if photometric == 8 else 65280)
    chroma = (wanted[:, 1:] + (128 if photometric == 9 else 0)) * step
    stored = np.concatenate((wanted[:, :1] * white / 100, chroma), axis=1).round().astype(np.int64) % (1 << bits)
    (tmp_path / "a.tif").write_bytes(tiff(stored[None].astype(f"u{bits // 8}"), bits, photometric))
    loaded = load_image(tmp_path / "a.tif")
    assert np.linalg.norm(lab_d50(loaded.rgb_HWC[0].double().numpy()) - wanted, axis=-1).max() < 0.3
    assert "Lab" in loaded.note


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_with_a_profile_keep_values_and_profile(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (5, 6, 3), dtype=np.uint16)
    if suffix == ".png":
        data = png(values, 16, 2, chunk(b"iCCP", b"x\0\0" + zlib.compress(P3)))
    else:
        data = tiff(values, 16, 2, tags={34675: (7, len(P3), P3)})
    (tmp_path / f"a{suffix}").write_bytes(data)
    loaded = load_image(tmp_path / f"a{suffix}")
    assert np.array_equal((loaded.rgb_HWC.numpy() * 65535).round(), values)
    assert loaded.metadata.icc_profile == P3
    assert "Display P3" in loaded.note and "profile goes with the result" in loaded.note
    for target in ("r.png", "r.tif", "r.jpg", "r.webp"):
        bits = 16 if target.endswith(("png", "tif")) else 8
        save_image(tmp_path / target, loaded.rgb_HWC, None, SaveOptions(bits=bits), loaded.metadata)
        with Image.open(tmp_path / target) as written:
            assert written.info["icc_profile"] == P3
    assert torch.equal(load_image(tmp_path / "r.png").rgb_HWC, loaded.rgb_HWC)


@pytest.mark.parametrize(
    "profile", [P3[:200], b"not a profile" * 20, P3[:128] + b"\xff" * 40, P3[:16] + b"GRAY" + P3[20:], b""]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_damaged_profile_keeps_the_pixels(tmp_path: Path, profile: bytes, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    picture.save(tmp_path / "a.tif", icc_profile=profile)
    loaded = load_image(tmp_path / "a.tif")
    assert torch.equal(loaded.rgb_HWC, torch.from_numpy(np.asarray(picture.convert("RGB")).copy()) / 255.0)
    assert ("profile" in loaded.note) == (profile != b"" or mode == "CMYK")


def test_damaged_compressed_profile(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    broken = chunk(b"iCCP", b"x\0\0" + zlib.compress(P3)[:50])
    (tmp_path / "a.png").write_bytes(png(values, 8, 2, broken))
    loaded = load_image(tmp_path / "a.png")
    assert torch.equal(loaded.rgb_HWC, torch.from_numpy(values) / 255.0)
    assert "colour profile damaged" in loaded.note


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("gamma", "applied"), [(1.0, True), (1 / 1.8, True), (0.45455, False), (0.45, False)])
@pytest.mark.parametrize("also", [b"", b"sRGB"])
def test_png_gamma(tmp_path: Path, gamma: float, applied: bool, also: bytes, bits: int) -> None:
    values = np.linspace(0, (1 << bits) - 1, 48).astype(f"u{bits // 8}").reshape(4, 4, 3)
    extra = chunk(b"gAMA", struct.pack(">I", round(gamma * 100000))) + (chunk(b"sRGB", b"\0") if also else b"")
    (tmp_path / "a.png").write_bytes(png(values, bits, 2, extra))
    loaded = load_image(tmp_path / "a.png")
    unit = values / ((1 << bits) - 1)
    expected = encode(unit ** (1 / round(gamma, 5))) if applied and not also else unit
    assert np.abs(loaded.rgb_HWC.numpy() - expected).max() < 1e-6
    assert ("gAMA" in loaded.note) == (applied and not also)


def test_png_gamma_and_primaries(tmp_path: Path) -> None:
    """gAMA and cHRM of Adobe RGB do what its profile does; gAMA 0 is damage."""
    chroma = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    extra = chunk(b"gAMA", struct.pack(">I", 45470)) + chunk(b"cHRM", chroma)
    (tmp_path / "a.png").write_bytes(png(PATCHES[None], 8, 2, extra))
    light = decode(PATCHES / 255)  # a gamma near 1/2.2 stands for the sRGB curve
    expected = encode(light @ np.array(TO_SRGB["adobe"]).T)
    assert delta_e(load_image(tmp_path / "a.png").rgb_HWC[0], expected) < 0.2
    (tmp_path / "b.png").write_bytes(png(PATCHES[None], 8, 2, chunk(b"gAMA", bytes(4))))
    loaded = load_image(tmp_path / "b.png")
    assert torch.equal(loaded.rgb_HWC[0], torch.from_numpy(PATCHES) / 255.0)
    assert "damaged" in loaded.note


@pytest.mark.parametrize("bits", [8, 16])
def test_png_cicp(tmp_path: Path, bits: int) -> None:
    """Display P3 as browsers and phones write it into a PNG; and a curve for brighter screens, which is only noted."""
    values = (PATCHES.astype(np.uint16) * 257 if bits == 16 else PATCHES)[None]
    (tmp_path / "a.png").write_bytes(png(values, bits, 2, chunk(b"cICP", bytes((12, 13, 0, 1)))))
    expected = encode(decode(PATCHES / 255) @ np.array(TO_SRGB["p3"]).T)
    loaded = load_image(tmp_path / "a.png")
    assert delta_e(loaded.rgb_HWC[0], expected) < 0.1
    assert "Display P3" in loaded.note
    (tmp_path / "b.png").write_bytes(png(values, bits, 2, chunk(b"cICP", bytes((9, 16, 0, 1)))))
    assert "cICP (9, 16, 0, 1) not supported" in load_image(tmp_path / "b.png").note
