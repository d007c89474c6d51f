"""One bad photograph among good ones: named, counted, left out; a damaged cache is made anew."""

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from tests.support.tiny_training import tiny_table, write_photos
from train.config import Config
from train.config_file import from_table
from train.data.crops import training_crops
from train.data.photo_files import decode_all, decode_cached, listed, load_pairs
from train.data.sources.photos import image_files, load_split
from train.loop.preview import validation_crops
from train.stages.sr_validation import validation_pairs


def huge_png(width: int, height: int) -> bytes:
    """A PNG of any size whose pixels are all one colour, in a few kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj()
    line = bytes(1 + -(-width // 8))
    data = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg(side: int = 96) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


BAD = {
    "text.jpg": (b"not a picture", "expected an image in a format Pillow reads"),
    "cut.jpg": (jpeg()[:1500], "got: image file is truncated"),
    "empty.png": (b"", "the file is empty"),
    "bomb.png": (huge_png(15000, 13000), "expected a picture of at most 150000000 pixels, got 15000x13000"),
    "bigger.png": (huge_png(30000, 13000), "390000000 pixels"),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n", "got PostScript"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good photographs and every bad one."""
    for split in ("train", "val"):
        write_photos(tmp_path, split, [(100, 140), (128, 96)])
        for name, (data, _) in BAD.items():
            (tmp_path / "data" / "photos" / split / name).write_bytes(data)
    return tmp_path


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in caplog.messages if "left out" in text]


def test_bad_photographs_are_named_counted_and_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = from_table(Config, tiny_table(folder), "x")
    crops = training_crops(config, "test", 0, 10, degraded=True)
    assert [photo.name for photo in crops.photos] == ["0.png", "1.png"]
    assert sum(photo.weight for photo in crops.photos) == pytest.approx(1.0)
    assert crops[0]["hr"].shape == (3, 64, 64)
    *each, total = messages(caplog)
    assert total == f"{len(BAD)} of {len(BAD) + 2} photographs left out: {', '.join(sorted(BAD))}"
    for text, name in zip(each, sorted(BAD), strict=True):
        assert f"{name}: " in text and BAD[name][1] in text and "\n" not in text


def test_validation_leaves_them_out_too_and_keeps_the_others_as_they_were(folder: Path) -> None:
    config = from_table(Config, tiny_table(folder), "x")
    assert len(validation_crops(config, 64)) == 2
    pairs = validation_pairs(config)
    assert list(pairs) == ["0.png", "1.png"]
    for name in BAD:
        (folder / "data" / "photos" / "val" / name).unlink()
    assert list(validation_pairs(config)) == ["0.png", "1.png"]


def test_a_folder_of_bad_photographs_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_bytes(b"no")
    with pytest.raises(AlloSR2Error, match=r"expected photographs that can be read in .*; all 1 cannot"):
        decode_all([tmp_path / "text.jpg"], tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "other"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    (path,) = write_photos(tmp_path, "train", [(40, 50)])
    whole = np.array(decode_cached(path, tmp_path / "cache"))
    (cached,) = (tmp_path / "cache").iterdir()
    if damage == "other":
        with cached.open("wb") as file:
            np.save(file, np.zeros((4, 4), np.float32))
    else:
        cached.write_bytes(cached.read_bytes()[: {"cut": -100, "header": 20, "empty": 0}[damage]])
    assert np.array_equal(decode_cached(path, tmp_path / "cache"), whole)
    (said,) = caplog.messages
    assert f"{cached.name}: damaged" in said and f"made anew from {path}" in said
    caplog.clear()
    assert np.array_equal(decode_cached(path, tmp_path / "cache"), whole) and not caplog.messages


def test_a_pair_with_a_bad_half_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "lr").mkdir()
    for path in write_photos(tmp_path, "train", [(128, 128), (128, 160)]):
        with Image.open(path) as image:
            image.resize((image.width // 4, image.height // 4)).save(tmp_path / "lr" / path.name)
    (tmp_path / "lr" / "0.png").write_bytes(b"no")
    photos = load_pairs(tmp_path / "data" / "photos" / "train", tmp_path / "lr", tmp_path / "cache", 3.0)
    assert [(photo.name, photo.weight) for photo in photos] == [("1.png", 3.0)]
    assert "1 of 2 photographs left out: 0.png" in caplog.text


def test_subfolders_are_searched_but_hidden_ones_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "photos"
    places = ("train/a.png", "train/trip/a.png", "train/trip/day/b.jpg", "train/.thumbnails/a.png", "train/._a.png")
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / place)
    for name in ("notes.txt", "c.heic", "d.heic"):
        (root / "train" / "trip" / name).write_bytes(b"")
    with caplog.at_level(logging.INFO):
        found = load_split(root, "train")
    assert [path.relative_to(root).as_posix() for path in found] == sorted(places[:3])
    assert image_files(root / "train") == found
    assert "files other than .jpg, .jpeg, .png, .webp left out: 2 of .heic, 1 of .txt" in caplog.text


def test_validation_photographs_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    folder = write_photos(tmp_path, "val", [(80, 70)])[0].parent
    (folder / "trip").mkdir()
    (folder / "trip" / "0.png").write_bytes((folder / "0.png").read_bytes())
    config = from_table(Config, tiny_table(tmp_path), "x")
    assert list(validation_pairs(config)) == ["0.png", "trip/0.png"]


def test_photographs_too_small_for_a_crop_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_photos(tmp_path, "train", [(100, 140), (40, 300)])
    config = from_table(Config, tiny_table(tmp_path), "x")
    training_crops(config, "test", 0, 10, degraded=False)
    assert "1 of 2 photographs are smaller than 64 px and not used: 1.png" in caplog.text


def test_a_list_of_names_stays_short() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(300)]).endswith("8, 9 and 290 more")
