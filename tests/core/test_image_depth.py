"""Sixteen bits in, sixteen bits out, for every kind of pixels and both formats that hold them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.read import load_image, read_header
from allosr2_core.image.write import SaveOptions, save_image
from tests.support.pictures import SIZES, photo


def deep(height: int, width: int, channels: int) -> np.ndarray:
    """Noise in a corner, smooth elsewhere: every row filter of PNG gets its turn."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    smooth = np.stack([(3000 + 90 * x + 17 * y * (c + 1)) % 65536 for c in range(channels)], axis=-1)
    noise = np.random.default_rng(2).integers(0, 65536, smooth.shape)
    return np.where(((x > width / 2) & (y > height / 2))[..., None], noise, smooth).astype(np.uint16)


def tensors(values: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
    unit = torch.from_numpy(values.astype(np.float32) / np.float32(65535))
    alpha = unit[..., -1] if values.shape[-1] in (2, 4) else None
    colours = unit[..., :3] if values.shape[-1] > 2 else unit[..., :1].expand(-1, -1, 3)
    return colours, alpha


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [*SIZES, (300, 500)])
def test_sixteen_bits_round_trip(tmp_path: Path, height: int, width: int, channels: int, suffix: str) -> None:
    values = deep(height, width, channels)
    rgb, alpha = tensors(values)
    path = tmp_path / f"a{suffix}"
    assert save_image(path, rgb, alpha, SaveOptions(bits=16, grey=channels < 3)) == ""
    loaded = load_image(path)
    assert torch.equal(loaded.rgb_HWC, rgb)
    assert (loaded.alpha_HW is None) == (alpha is None)
    if alpha is not None and loaded.alpha_HW is not None:
        assert torch.equal(loaded.alpha_HW, alpha)
    header = read_header(path)
    assert (header.bits, header.grey, header.transparent) == (16, channels < 3, channels in (2, 4))
    assert (header.height, header.width, header.frames) == (height, width, 1)
    assert (loaded.bits, loaded.grey, loaded.note) == (16, channels < 3, "")


@pytest.mark.parametrize(
    ("suffix", "channels"), [(s, c) for s in (".png", ".tif", ".jpg", ".webp") for c in (1, 2) if (s, c) != (".jpg", 2)]
)
def test_eight_bit_grey(tmp_path: Path, suffix: str, channels: int) -> None:
    values = photo(40, 30, channels)
    unit = torch.from_numpy(values) / 255.0
    rgb, alpha = unit[..., :1].expand(-1, -1, 3), unit[..., 1] if channels == 2 else None
    save_image(tmp_path / f"a{suffix}", rgb, alpha, SaveOptions(grey=True, quality=100))
    with Image.open(tmp_path / f"a{suffix}") as written:
        # WebP has no grey.
        assert len(written.getbands()) == (channels if suffix != ".webp" else channels + 2)
    loaded = load_image(tmp_path / f"a{suffix}")
    if suffix in (".png", ".tif"):
        assert torch.equal(loaded.image_BHWC[0, ..., 0], unit[..., 0])
    if alpha is not None:
        assert loaded.alpha_HW is not None and torch.equal(loaded.alpha_HW, alpha)
    assert loaded.grey == (suffix != ".webp")


def test_grey_with_colours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match=r"a\.png.*equal channels"):
        save_image(tmp_path / "a.png", torch.rand(3, 3, 3), options=SaveOptions(grey=True))


def test_other_programs_read_what_is_written(tmp_path: Path) -> None:
    """Pillow, which shares no code with the readers here, sees the top eight bits of each."""
    for channels in (3, 4):
        values = deep(40, 70, channels)
        rgb, alpha = tensors(values)
        for suffix in (".png", ".tif"):
            save_image(tmp_path / f"a{suffix}", rgb, alpha, SaveOptions(bits=16))
            with Image.open(tmp_path / f"a{suffix}") as opened:
                assert np.array_equal(np.asarray(opened), values >> 8)
    values = deep(40, 70, 1)
    for suffix in (".png", ".tif"):
        save_image(tmp_path / f"g{suffix}", tensors(values)[0], None, SaveOptions(bits=16, grey=True))
        with Image.open(tmp_path / f"g{suffix}") as opened:
            assert np.array_equal(np.asarray(opened), values[..., 0])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_values_are_rounded_and_clamped(tmp_path: Path, suffix: str) -> None:
    numbers = torch.tensor([-0.5, 0.0, 0.4 / 65535, 0.6 / 65535, 65534.6 / 65535, 1.0, 7.0])
    save_image(tmp_path / f"a{suffix}", numbers[None, :, None].expand(1, 7, 3), options=SaveOptions(bits=16))
    found = load_image(tmp_path / f"a{suffix}").rgb_HWC[0, :, 0] * 65535
    assert found.round().tolist() == [0, 0, 0, 1, 65535, 65535, 65535]


def test_ppm(tmp_path: Path) -> None:
    values = deep(5, 7, 3)
    (tmp_path / "a.ppm").write_bytes(b"P6\n# by hand\n7 5\n65535\n" + values.astype(">u2").tobytes())
    loaded = load_image(tmp_path / "a.ppm")
    assert np.array_equal((loaded.rgb_HWC * 65535).round().numpy(), values)
    assert loaded.bits == read_header(tmp_path / "a.ppm").bits == 16
    (tmp_path / "b.pgm").write_bytes(b"P5 7 5 65535\n" + values[..., 0].astype(">u2").tobytes())
    assert np.array_equal((load_image(tmp_path / "b.pgm").rgb_HWC[..., 1] * 65535).round().numpy(), values[..., 0])
    (tmp_path / "c.ppm").write_bytes(b"P6 7 5 65535\n" + values.astype(">u2").tobytes()[:-3])
    with pytest.raises(AlloSR2Error, match=r"c\.ppm.*truncated"):
        load_image(tmp_path / "c.ppm")
    (tmp_path / "d.ppm").write_bytes(b"P6 7 5 1023\n" + (values >> 6).astype(">u2").tobytes())
    loaded = load_image(tmp_path / "d.ppm")
    assert "10 bits" in loaded.note and loaded.bits == 8
    assert np.abs(loaded.rgb_HWC.numpy() - (values >> 6) / 1023).max() <= 1 / 255


def test_what_pillow_keeps_at_eight_bits_is_said(tmp_path: Path) -> None:
    """JPEG 2000 with 16 bits of grey has them all; a 10-bit AVIF comes out with 8 and a note."""
    values = deep(20, 30, 1)[..., 0]
    Image.fromarray(values).save(tmp_path / "a.jp2", irreversible=False)
    loaded = load_image(tmp_path / "a.jp2")
    assert np.array_equal((loaded.rgb_HWC[..., 0] * 65535).round().numpy(), values)
    assert loaded.bits == 16 and loaded.note == ""
    Image.fromarray(photo(20, 30)).save(tmp_path / "b.jp2", irreversible=False)
    assert load_image(tmp_path / "b.jp2").note == ""
    data = bytearray((tmp_path / "b.jp2").read_bytes())
    assert data[data.find(b"\xff\x4f\xff\x51") + 42] == 7  # Ssiz of the first component: 8 bits, less one
