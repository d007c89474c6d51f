"""Files that are odd but good, files that are nearly good, and things that are no files."""

import io
import os
import socket
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image import geometry
from allosr2_core.image.read import READABLE_SUFFIXES, load_image, read_header
from tests.support.awkward_pictures import chunk, png, tiff
from tests.support.pictures import photo


def encoded(file_format: str, height: int = 64, width: int = 80, **settings: object) -> bytes:
    """A picture with something in every corner, the last one too."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([(x * 3) % 256, (y * 4) % 256, ((x + y) * 5) % 256], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=file_format, **settings)
    return buffer.getvalue()


def test_content_decides_and_every_suffix_is_there(tmp_path: Path) -> None:
    for suffix in (".jfif", ".jpe", ".mpo", ".apng", ".jp2", ".tga", ".tif", ".tiff", ".gif", ".bmp", ".avif", ".ppm"):
        assert suffix in READABLE_SUFFIXES
    for file_format in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"):
        for suffix in (".jpg", ".png", ".tga", ".data", ""):
            path = tmp_path / f"{file_format}{suffix}"
            path.write_bytes(encoded(file_format))
            assert tuple(load_image(path).rgb_HWC.shape) == (64, 80, 3)
            assert (read_header(path).height, read_header(path).width) == (64, 80)


@pytest.mark.parametrize("name", ["photo.jfif", "photo.JPE", "photo.jpeg"])
def test_jpeg_suffixes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(encoded("JPEG"))
    assert load_image(tmp_path / name).note == ""


@pytest.mark.parametrize("compression", ["tga_rle", None])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_targa(tmp_path: Path, mode: str, compression: str | None) -> None:
    picture = Image.fromarray(photo(channels=4)).convert(mode)
    picture.save(tmp_path / "a.tga", compression=compression)
    loaded = load_image(tmp_path / "a.tga")
    assert torch.equal(
        loaded.image_BHWC[0],
        torch.from_numpy(np.asarray(picture.convert("RGBA" if mode == "RGBA" else "RGB")).copy()) / 255.0,
    )
    # Without its suffix it is known by its footer only.
    old = (tmp_path / "a.tga").read_bytes().removesuffix(b"TRUEVISION-XFILE.\0")
    (tmp_path / "b.png").write_bytes(old)
    with pytest.raises(AlloSR2Error, match=r"b\.png"):
        load_image(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "HEIC.*heif-convert"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heicmif1" + bytes(200), "HEIC"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL"),
        (b"8BPS\0\1" + bytes(50), "PSD"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(60), "none of"),
        (b"SIMPLE  =                    T" + b" " * 3000, "none of"),
        (b"<!doctype html><html>404</html>", "none of"),
    ],
)
def test_foreign_files_are_named(tmp_path: Path, data: bytes, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    for read in (load_image, read_header):
        with pytest.raises(AlloSR2Error, match=rf"a\.jpg.*{kind}"):
            read(tmp_path / "a.jpg")


def test_avif_is_not_taken_for_heic(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(encoded("AVIF"))
    assert tuple(load_image(tmp_path / "a.heic").rgb_HWC.shape) == (64, 80, 3)


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "none.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "folder.png").mkdir()
    plug = socket.socket(socket.AF_UNIX)
    plug.bind(str(tmp_path / "s.png"))
    cases = {"pipe.png": "a pipe", "s.png": "a socket", "folder.png": "a folder", "link.png": "a link to nothing"}
    for name, kind in {**cases, "circle.png": "symbolic links", "none.png": "nothing", "a\0b.png": "null"}.items():
        for read in (load_image, read_header):
            with pytest.raises(AlloSR2Error, match=f"expected an image file, .*{kind}"):
                read(f"{tmp_path}/{name}")
    plug.close()
    with pytest.raises(AlloSR2Error, match="/dev/null: expected an image file, found a device"):
        load_image("/dev/null")
    (tmp_path / "good.png").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_bytes(encoded("PNG"))
    assert load_image(tmp_path / "good.png").note == ""


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "restarts", "scans"])
@pytest.mark.parametrize("cut", [1, 2])
def test_jpeg_without_its_end_marker_is_read(tmp_path: Path, kind: str, cut: int) -> None:
    data = jpeg(kind)
    (tmp_path / "whole.jpg").write_bytes(data)
    (tmp_path / "cut.jpg").write_bytes(data[:-cut])
    whole, short = load_image(tmp_path / "whole.jpg"), load_image(tmp_path / "cut.jpg")
    assert whole.note == ""
    assert "last bytes of the file are missing" in short.note
    assert torch.equal(short.rgb_HWC, whole.rgb_HWC)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "restarts", "scans"])
def test_jpeg_is_never_read_wrongly_whatever_is_cut(tmp_path: Path, kind: str) -> None:
    """Every cut near the end, and many in the middle: either the picture, exactly, with a note, or an error."""
    data = jpeg(kind)
    (tmp_path / "whole.jpg").write_bytes(data)
    whole = load_image(tmp_path / "whole.jpg").rgb_HWC
    refused = 0
    for cut in (*range(1, 60), 100, *range(150, len(data) - 3, max(1, len(data) // 60))):
        (tmp_path / "cut.jpg").write_bytes(data[:-cut])
        try:
            loaded = load_image(tmp_path / "cut.jpg")
        except AlloSR2Error as error:
            assert "cut.jpg: expected a complete image" in str(error)
            refused += 1
        else:
            assert torch.equal(loaded.rgb_HWC, whole), f"cut by {cut}"
            assert cut <= 8 and loaded.note
    assert refused > 90


def jpeg(kind: str) -> bytes:
    if kind == "grey":
        buffer = io.BytesIO()
        Image.open(io.BytesIO(encoded("JPEG"))).convert("L").save(buffer, format="JPEG", quality=90)
        return buffer.getvalue()
    if kind == "restarts":
        return encoded("JPEG", quality=90, restart_marker_blocks=3)
    if kind == "scans":
        return encoded("JPEG", quality=90, progressive=True, subsampling=0, optimize=True)
    return encoded("JPEG", quality=90, progressive=kind == "progressive")


def test_progressive_jpeg_cut_between_two_scans_is_refused(tmp_path: Path) -> None:
    """Two fillers decode to the same picture there; what is missing are whole scans."""
    data = encoded("JPEG", quality=90, progressive=True)
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    assert len(starts) > 4
    for start in starts[1:]:
        tables = data.rfind(b"\xff\xc4", 0, start)
        for at in (start, tables):
            (tmp_path / "cut.jpg").write_bytes(data[:at])
            with pytest.raises(AlloSR2Error, match="truncated"):
                load_image(tmp_path / "cut.jpg")


def test_what_stands_behind_a_picture(tmp_path: Path) -> None:
    """Padding means nothing; a second view and a video are left out and said to be."""
    data = encoded("JPEG")
    movie = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + b"\0\0\0\x08mdat" + bytes(500)
    for behind, note in ((bytes(5000), ""), (movie, "video"), (encoded("JPEG", 8, 8), "second picture")):
        (tmp_path / "a.jpg").write_bytes(data + behind)
        loaded = load_image(tmp_path / "a.jpg")
        assert note in loaded.note and bool(loaded.note) == bool(note)
        assert read_header(tmp_path / "a.jpg").frames == 1
    views = [Image.fromarray(photo(16, 24, seed=seed)) for seed in (0, 1)]
    for name in ("a.mpo", "b.jpg"):
        views[0].save(tmp_path / name, format="MPO", save_all=True, append_images=views[1:], quality=100)
        assert (read_header(tmp_path / name).frames, read_header(tmp_path / name).animated) == (1, False)
        loaded = load_image(tmp_path / name)
        assert "second picture" in loaded.note
        away = [float((loaded.rgb_HWC - torch.from_numpy(photo(16, 24, seed=s)) / 255).abs().mean()) for s in (0, 1)]
        assert away[0] < 0.8 * away[1]
        with pytest.raises(AlloSR2Error, match="frame from 0 to 0"):
            load_image(tmp_path / name, 1)


@pytest.mark.parametrize("end", ["no IEND", "half an IEND", "no checksum", "garbage"])
def test_png_with_a_damaged_end(tmp_path: Path, end: str) -> None:
    data = encoded("PNG")
    at = data.index(b"IEND") - 4
    cut = {
        "no IEND": data[:at],
        "half an IEND": data[: at + 6],
        "no checksum": data[: at - 4],
        "garbage": data + b"x" * 99,
    }
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "b.png").write_bytes(cut[end])
    whole, damaged = load_image(tmp_path / "a.png"), load_image(tmp_path / "b.png")
    assert torch.equal(whole.rgb_HWC, damaged.rgb_HWC)
    assert ("IEND" in damaged.note) == (end != "garbage")
    (tmp_path / "c.png").write_bytes(data[: at - 30])
    with pytest.raises(AlloSR2Error, match=r"c\.png: expected a complete image"):
        load_image(tmp_path / "c.png")


def test_more_than_pillow_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 megapixels, as a phone's sensor has; Pillow's limit is back afterwards, after an error too."""
    before = Image.MAX_IMAGE_PIXELS
    small = png(np.zeros((1, 1, 1), dtype=np.uint8), 1, 0)
    size = chunk(b"IHDR", struct.pack(">IIBBBBB", 16320, 12240, 1, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(2041 * 12240)))
    (tmp_path / "large.png").write_bytes(small[:8] + size + pixels + chunk(b"IEND", b""))
    header = read_header(tmp_path / "large.png")
    assert (header.height, header.width) == (12240, 16320)
    # The same without the minutes: Pillow's limit as far below the picture.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    for file_format in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"):
        (tmp_path / "a.bin").write_bytes(encoded(file_format))
        assert tuple(load_image(tmp_path / "a.bin").rgb_HWC.shape) == (64, 80, 3)
        assert Image.MAX_IMAGE_PIXELS == 2000
    Image.fromarray(photo(64, 80)).save(tmp_path / "a.tif", compression="tiff_lzw")
    load_image(tmp_path / "a.tif")
    (tmp_path / "bad.png").write_bytes(encoded("PNG")[:60])
    with pytest.raises(AlloSR2Error):
        load_image(tmp_path / "bad.png")
    assert Image.MAX_IMAGE_PIXELS == 2000
    assert before == 1024 * 1024 * 1024 // 4 // 3


def test_threads_put_the_limit_back(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", 300, 300))
    threads = [threading.Thread(target=lambda: [load_image(tmp_path / "a.jpg") for _ in range(10)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == Image.MAX_IMAGE_PIXELS


def oversized() -> dict[str, bytes]:
    """60000 x 60000 px in the header and next to no pixels."""
    huge = struct.pack("<HH", 60000, 60000)
    gif = bytearray(encoded("GIF"))
    gif[6:10] = huge
    still = png(np.zeros((1, 1, 1), dtype=np.uint8), 8, 0)
    large = struct.pack(">II", 60000, 60000)
    bomb = still[:16] + large + still[24:29]
    bomb += struct.pack(">I", zlib.crc32(bomb[12:29])) + still[33:]
    page = bytearray(tiff(photo(3, 4), 8, 2))
    for tag in (256, 257):
        at = page.index(struct.pack("<HHI", tag, 4, 1))
        page[at + 8 : at + 12] = struct.pack("<I", 60000)
    bmp = bytearray(encoded("BMP"))
    bmp[18:26] = struct.pack("<II", 60000, 60000)
    return {
        "a.gif": bytes(gif),
        "a.png": bomb,
        "a.tif": bytes(page),
        "a.bmp": bytes(bmp),
        "a.ppm": b"P6 60000 60000 255\n",
    }


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif", "a.bmp", "a.ppm"])
def test_size_is_checked_before_pixels(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(oversized()[name])
    for read in (load_image, read_header):
        with pytest.raises(AlloSR2Error, match=r"got 60000x60000|3600000000 pixels"):
            read(tmp_path / name)


def test_a_frame_that_enlarges_a_gif_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(photo(5, 7, seed=seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], disposal=2)
    data = bytearray((tmp_path / "a.gif").read_bytes())
    at = data.rindex(b"," + struct.pack("<HHHH", 0, 0, 7, 5))
    data[at + 5 : at + 9] = struct.pack("<HH", 60000, 60000)
    (tmp_path / "a.gif").write_bytes(data)
    load_image(tmp_path / "a.gif")
    with pytest.raises(AlloSR2Error, match=r"a\.gif.*3600000000 pixels"):
        load_image(tmp_path / "a.gif", 1)


def test_size_is_checked_for_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [Image.fromarray(photo(5, 7)), Image.fromarray(photo(40, 50))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    monkeypatch.setattr(geometry, "MAX_PIXELS", 1999)
    load_image(tmp_path / "a.tif", 0)
    with pytest.raises(AlloSR2Error, match=r"a\.tif.*got 50x40"):
        load_image(tmp_path / "a.tif", 1)


def test_only_allowed_formats_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is read, Pillow is told what it may be."""
    seen: list[object] = []
    real = Image.open

    def spy(*arguments: object, **settings: object) -> Image.Image:
        seen.append(settings.get("formats"))
        return real(*arguments, **settings)

    monkeypatch.setattr(Image, "open", spy)
    for file_format in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        (tmp_path / "a.bin").write_bytes(encoded(file_format))
        load_image(tmp_path / "a.bin")
    assert len(seen) >= 5
    assert all(formats and not {"EPS", "PSD", "FITS", "WMF"} & set(formats) for formats in seen)


def seeds() -> list[bytes]:
    """Small files of every kind; those that are taken apart here are not all that Pillow writes."""
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (20, 33, 3)).astype(np.uint16)
    frames = [Image.fromarray(rng.integers(0, 256, (9, 12, 4), dtype=np.uint8)) for _ in range(3)]
    files = [tiff(deep, 16, 2, tile=(16, 16), compression=8, predictor=2), png(deep, 16, 2), encoded("AVIF", 16, 16)]
    files += [encoded(file_format, 16, 16) for file_format in ("JPEG", "PNG", "WEBP", "BMP")]
    for file_format in ("GIF", "PNG", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        settings = {"compression": "tiff_lzw"} if file_format == "TIFF" else {}
        frames[0].save(buffer, format=file_format, save_all=True, append_images=frames[1:], **settings)
        files.append(buffer.getvalue())
    return files


SEEDS = seeds()


@settings(max_examples=200)
@given(data=st.data())
def test_damage_anywhere_is_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, min(300, len(damaged) - 1)), st.integers(0, len(damaged) - 1)))
        damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "d.bin"
    path.write_bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(1, len(damaged))))])
    try:
        for frame in range(min(read_header(path).frames, 3)):
            rgb = load_image(path, frame).rgb_HWC
            assert bool(torch.isfinite(rgb).all()) and 0 <= float(rgb.min()) <= float(rgb.max()) <= 1
    except AlloSR2Error as error:
        assert "d.bin" in str(error)
