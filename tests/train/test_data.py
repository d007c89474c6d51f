"""Training crops: a pure function of seed and index, of the promised size, and seldom flat."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.losses.perceptual import random_window
from tests.support.tiny_training import tiny_table, write_photos
from train.config import Config
from train.config_file import from_table
from train.data import crops as data
from train.data.crops import (
    FLAT_SHARE,
    LUMA,
    MIN_DETAIL,
    PhotoCrops,
    bicubic_up,
    derive_seed,
    detail,
    sharpened,
    training_crops,
)
from train.data.degradation import degrade
from train.data.photo_files import decode_cached, load_pairs, load_photos, noisy_names
from train.loop.preview import busiest_crop, centre_crop, psnr, strip


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return write_photos(tmp_path, "train", [(90, 130), (160, 100), (70, 70)])


def crops(paths: list[Path], strengths: tuple[float, ...] | None = (0.25, 0.5, 0.25), **options: Any) -> PhotoCrops:
    values = {"crop": 64, "seed": 1, "start": 0, "length": 40} | options
    return PhotoCrops(load_photos(paths, paths[0].parent / "cache"), strengths=strengths, **values)


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


# ---- a pure function of seed and index ----


def test_an_item_depends_on_seed_and_index_alone(photos: list[Path]) -> None:
    one, two = crops(photos), crops(photos)
    torch.manual_seed(0)
    forward = [one[i] for i in range(6)]
    torch.manual_seed(99)
    backward = [two[i] for i in reversed(range(6))][::-1]
    assert all(equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not equal(forward[0], forward[1])
    assert not equal(crops(photos, seed=2)[0], forward[0])


def test_a_resumed_run_goes_on_where_it_stopped(photos: list[Path]) -> None:
    whole, rest = crops(photos), crops(photos, start=12)
    assert (len(whole), len(rest), len(crops(photos, start=40))) == (40, 28, 0)
    for i in range(4):
        assert equal(rest[i], whole[12 + i])


def test_seeds_are_stable_distinct_and_positive() -> None:
    assert derive_seed(1, "crop", 0) == 1661582987815537467
    seeds = {derive_seed(run, name, i) for run in range(5) for name in ("crop", "prior") for i in range(50)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)


# ---- what an item is ----


def test_sizes_and_ranges(photos: list[Path]) -> None:
    dataset = crops(photos)
    for i in range(12):
        item = dataset[i]
        assert item.keys() == {"hr", "lr", "strength"}
        assert item["hr"].shape == (3, 64, 64) and item["lr"].shape == (3, 16, 16)
        assert 0.0 <= float(item["hr"].min()) <= float(item["hr"].max()) <= 1.0
        assert item["hr"].is_contiguous()
    assert crops(photos, strengths=None)[0].keys() == {"hr"}


def test_the_low_resolution_side_is_the_degraded_high_resolution_side(photos: list[Path]) -> None:
    """Same place and orientation: enlarged again it must resemble its own crop and no other."""
    items = [crops(photos, strengths=(1.0, 0.0, 0.0))[i] for i in range(6)]
    for i, item in enumerate(items):
        up = bicubic_up(item["lr"][None], 4)[0]
        distances = [float((up - other["hr"]).square().mean()) for other in items]
        assert distances.index(min(distances)) == i


@pytest.mark.parametrize("index", [0, 1, 2])
def test_strengths_are_drawn_by_their_shares(photos: list[Path], index: int) -> None:
    strengths = tuple(float(i == index) for i in range(3))
    assert {int(crops(photos, strengths=strengths)[i]["strength"]) for i in range(5)} == {index}


def test_crops_are_turned_and_mirrored_in_all_eight_ways(tmp_path: Path) -> None:
    """A picture whose corners differ, as large as the crop: each item shows one of its eight orientations."""
    corners = np.zeros((64, 64, 3), np.uint8)
    corners[:32, :32], corners[:32, 32:], corners[32:, :32], corners[32:, 32:] = 0, 80, 160, 240
    Image.fromarray(corners + np.random.default_rng(0).integers(0, 10, corners.shape, np.uint8)).save(
        tmp_path / "a.png"
    )
    dataset = crops([tmp_path / "a.png"], strengths=None, length=200)
    seen = set()
    for i in range(80):
        hr = dataset[i]["hr"]
        quarters = (hr[0, :32, :32], hr[0, :32, 32:], hr[0, 32:, :32], hr[0, 32:, 32:])
        seen.add(tuple(round(float(q.mean()) * 3) for q in quarters))
    assert len(seen) == 8


# ---- which photographs and crops ----


def test_flat_crops_are_mostly_drawn_again(tmp_path: Path) -> None:
    """Nine tenths of the picture are sky; without drawing again nearly that share of the crops would be."""
    rng = np.random.default_rng(0)
    pixels = np.full((128, 1280, 3), 128, np.uint8)
    pixels[:, :128] = rng.integers(0, 255, (128, 128, 3))
    Image.fromarray(pixels).save(tmp_path / "sky.png")
    dataset = crops([tmp_path / "sky.png"], strengths=None, length=400)
    flat = sum(detail(dataset[i]["hr"]) < MIN_DETAIL for i in range(200)) / 200
    # each flat draw is kept with FLAT_SHARE, the last of TRIES always
    p = 1 - 128 / (1280 - 92)  # a crop's left edge misses the detail; crops are 64 to 128 px, 92 in the mean
    expected = sum(p * FLAT_SHARE * (p * (1 - FLAT_SHARE)) ** i for i in range(data.TRIES - 1))
    expected += p * (p * (1 - FLAT_SHARE)) ** (data.TRIES - 1)
    assert flat == pytest.approx(expected, abs=0.1)
    assert flat < p - 0.15


def test_flat_crops_are_kept_where_a_stage_asks_for_them(tmp_path: Path) -> None:
    pixels = np.full((64, 640, 3), 128, np.uint8)
    pixels[:, :64] = np.random.default_rng(0).integers(0, 255, (64, 64, 3))
    Image.fromarray(pixels).save(tmp_path / "sky.png")
    kept = crops([tmp_path / "sky.png"], strengths=None, length=100, flat_share=1.0)
    assert sum(detail(kept[i]["hr"]) < MIN_DETAIL for i in range(100)) > 75  # 512 of 576 places are flat


@pytest.mark.parametrize(
    ("zoom", "slopes"), [((0.5, 0.5), (1.9, 2.1)), ((2.0, 2.0), (0.45, 0.55)), ((0.5, 2.0), (0.4, 2.2))]
)
def test_crops_are_seen_at_sizes_of_the_asked_range(
    tmp_path: Path, zoom: tuple[float, float], slopes: tuple[float, float]
) -> None:
    """A ramp is steeper in a picture made smaller."""
    ramp = np.broadcast_to(np.arange(0, 200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "ramp.png")
    dataset = crops([tmp_path / "ramp.png"], strengths=None, length=40, zoom=zoom)
    found = []
    for i in range(40):
        hr = dataset[i]["hr"].mean(dim=0)[8:-8, 8:-8] * 255
        found.append(max(float(hr.diff(dim=d).mean().abs()) for d in (0, 1)))
    assert slopes[0] < min(found) and max(found) < slopes[1]
    if zoom[0] < zoom[1]:
        assert sum(slope > 1.0 for slope in found) / 40 == pytest.approx(0.5, abs=0.25)  # as often larger as smaller


def test_a_photograph_smaller_than_the_range_asks_for_is_taken_whole(tmp_path: Path) -> None:
    (path,) = write_photos(tmp_path, "train", [(70, 90)])
    assert crops([path], strengths=None, zoom=(0.2, 0.4))[0]["hr"].shape == (3, 64, 64)


def test_a_range_of_sizes_must_be_one(photos: list[Path]) -> None:
    with pytest.raises(AlloSR2Error, match=r"zoom: expected a range of positive sizes; got \[1.0, 0.5\]"):
        crops(photos, zoom=(1.0, 0.5))


def test_a_photograph_that_is_all_flat_still_gives_crops(tmp_path: Path) -> None:
    Image.new("RGB", (80, 80), (10, 90, 200)).save(tmp_path / "blue.png")
    assert crops([tmp_path / "blue.png"])[0]["hr"].shape == (3, 64, 64)


def test_detail_is_the_deviation_of_the_laplacian() -> None:
    assert detail(torch.full((3, 20, 20), 0.7)) == pytest.approx(0.0, abs=1e-3)
    checkers = ((torch.arange(21)[:, None] + torch.arange(21)) % 2).float().expand(3, -1, -1)
    assert detail(checkers) == pytest.approx(4 * 255, rel=0.01)  # -4 to 4 neighbours, half of them each


def test_photographs_smaller_than_the_crop_are_left_out(photos: list[Path], tmp_path: Path) -> None:
    Image.new("RGB", (63, 500), (255, 0, 0)).save(tmp_path / "narrow.png")
    dataset = crops([*photos, tmp_path / "narrow.png"], strengths=None)
    for i in range(20):
        assert not bool((dataset[i]["hr"][0] == 1).all())
    with pytest.raises(AlloSR2Error, match="at least 64 px; got 1"):
        crops([tmp_path / "narrow.png"])


def test_photographs_are_decoded_once_and_upright(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    decoded = decode_cached(tmp_path / "turned.png", tmp_path / "cache")
    assert decoded.shape == (6, 4, 3) and decoded.dtype == np.uint8
    assert decoded[0, 3].tolist() == [255, 255, 255]
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert np.array_equal(decode_cached(tmp_path / "turned.png", tmp_path / "cache"), decoded)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == written
    assert len(written) == 1


def test_another_file_never_answers_from_the_cache(tmp_path: Path) -> None:
    """Two folders of one name with files of one name, and a file that was replaced."""
    for place, grey in (("a", 10), ("b", 20)):
        (tmp_path / place / "hr").mkdir(parents=True)
        Image.new("L", (8, 8), grey).save(tmp_path / place / "hr" / "1.png")
    a, b = (tmp_path / place / "hr" / "1.png" for place in ("a", "b"))
    assert [int(decode_cached(path, tmp_path / "cache")[0, 0, 0]) for path in (a, b, a)] == [10, 20, 10]
    Image.new("L", (8, 8), 30).save(a)
    os.utime(a, ns=(1, 1))
    assert int(decode_cached(a, tmp_path / "cache")[0, 0, 0]) == 30


def test_noisy_photographs_are_halved(tmp_path: Path) -> None:
    name = sorted(noisy_names())[0]
    Image.new("L", (31, 20), 77).save(tmp_path / name, format="PNG")
    assert decode_cached(tmp_path / name, tmp_path / "cache").shape == (10, 15, 3)


def test_a_share_of_crops_is_grey_and_the_others_are_as_they_were(photos: list[Path]) -> None:
    """In both pictures of a pair; the degradation's coloured noise is gone too."""
    plain, some, all_of_them = (crops(photos, length=200, grey=share) for share in (0.0, 0.3, 1.0))
    count = 0
    for i in range(60):
        before, after = plain[i], some[i]
        if equal(before, after):
            continue
        count += 1
        assert equal(after, all_of_them[i])
        for picture, colour in ((after["hr"], before["hr"]), (after["lr"], before["lr"])):
            assert torch.equal(picture[0], picture[1]) and torch.equal(picture[0], picture[2])
            assert not torch.equal(colour[0], colour[1])
        torch.testing.assert_close(
            after["hr"][0], sum(weight * channel for weight, channel in zip(LUMA, before["hr"], strict=True))
        )
    assert 8 <= count <= 30


def test_a_configuration_sets_the_share_of_grey_crops(tmp_path: Path) -> None:
    write_photos(tmp_path, "train", [(100, 140)])
    table = tiny_table(tmp_path)
    assert "grey" not in table["data"]  # as in configurations of older versions
    assert training_crops(from_table(Config, table, "x"), "sr", 0, 4, degraded=True).grey == 0.0
    table["data"]["grey"] = 0.05
    assert training_crops(from_table(Config, table, "x"), "sr", 0, 4, degraded=True).grey == 0.05


# ---- sources ----


def pairs_in(root: Path, sizes: list[tuple[int, int]]) -> tuple[Path, Path]:
    """Paired folders: each low-resolution picture is every fourth pixel of the other, so places can be compared."""
    (root / "lr").mkdir()
    for path in write_photos(root, "train", sizes):
        with Image.open(path) as image:
            Image.fromarray(np.asarray(image)[::4, ::4]).save(root / "lr" / path.name)
    return root / "data" / "photos" / "train", root / "lr"


def test_pairs_are_cut_at_the_same_place_and_turned_alike(tmp_path: Path) -> None:
    photos = load_pairs(*pairs_in(tmp_path, [(128, 160), (96, 96)]), tmp_path / "cache", weight=1.0)
    dataset = PhotoCrops(photos, 64, 5, (0.0, 1.0, 0.0), 0, 40)
    seen = set()
    for i in range(40):
        item = dataset[i]
        assert item["hr"].shape == (3, 64, 64) and item["lr"].shape == (3, 16, 16) and int(item["strength"]) == -1
        corners = [(0, 0), (0, 3), (3, 0), (3, 3)]  # where the kept pixel of each cell lies after turning
        matches = [c for c in corners if torch.equal(item["hr"][:, c[0] :: 4, c[1] :: 4], item["lr"])]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 4


def test_pairs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    hr, lr = pairs_in(tmp_path, [(64, 64), (96, 128)])
    Image.new("RGB", (31, 24)).save(lr / "1.png")
    with pytest.raises(AlloSR2Error, match=r"1.png: expected a picture 4 times its input; got 128x96 and 31x24"):
        load_pairs(hr, lr, tmp_path / "cache", 1.0)
    (lr / "1.png").unlink()
    Image.new("RGB", (16, 16)).save(lr / "other.png")
    with pytest.raises(AlloSR2Error, match=r"without a partner: \['1', 'other'\]"):
        load_pairs(hr, lr, tmp_path / "cache", 1.0)
    with pytest.raises(AlloSR2Error, match="expected pictures in .*none; no such folder"):
        load_pairs(tmp_path / "none", lr, tmp_path / "cache", 1.0)


def test_sources_are_drawn_by_their_weight(tmp_path: Path) -> None:
    """A large dark folder of weight 1, a small bright picture of weight 3: three quarters of the crops are bright."""
    for name, grey, size in (("dark", 10, (400, 300)), ("dark", 12, (90, 90)), ("bright", 240, (70, 70))):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("L", size, grey).save(tmp_path / name / f"{grey}.png")
    table = tiny_table(tmp_path)
    table["data"]["sources"] = [
        {"hr": str(tmp_path / "dark"), "lr": "", "weight": 1.0},
        {"hr": str(tmp_path / "bright"), "lr": "", "weight": 3},
    ]
    config = from_table(Config, table, "x")
    dataset = training_crops(config, "any", 0, 400, degraded=False)
    bright = sum(float(dataset[i]["hr"].mean()) > 0.5 for i in range(400)) / 400
    assert bright == pytest.approx(0.75, abs=0.07)
    table["data"]["sources"][0]["wieght"] = table["data"]["sources"][0].pop("weight")
    with pytest.raises(AlloSR2Error, match="unknown key 'wieght'; did you mean 'weight'?"):
        from_table(Config, table, "x")


# ---- previews ----


def test_bicubic_up_keeps_a_flat_picture_and_the_range() -> None:
    assert torch.equal(bicubic_up(torch.full((1, 3, 4, 5), 0.25), 4), torch.full((1, 3, 16, 20), 0.25))
    sharp = bicubic_up((torch.arange(6) % 2).float().expand(1, 3, 6, 6), 4)
    assert float(sharp.min()) == 0.0 and float(sharp.max()) == 1.0


def test_previews(tmp_path: Path) -> None:
    crop = centre_crop(np.arange(100 * 70 * 3, dtype=np.uint8).reshape(100, 70, 3), 512)
    assert crop.shape == (1, 3, 64, 64)
    assert psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)) == pytest.approx(20.0)
    assert psnr(crop, crop) == pytest.approx(120.0)
    strip([[crop, crop * 0.5]] * 3, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (256, 128)  # two columns of 128 px, the fourth place empty
        assert sheet.getpixel((0, 64)) != (0, 0, 0) == sheet.getpixel((128, 64))
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_the_busiest_crop_is_where_the_detail_is() -> None:
    photo = np.full((200, 400, 3), 128, dtype=np.uint8)
    photo[90:170, 300:390] = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    crop = busiest_crop(photo, 128)
    assert crop.shape == (1, 3, 128, 128)
    assert torch.equal(crop[0], torch.from_numpy(photo[64:192, 256:384]).permute(2, 0, 1).float() / 255)
    assert busiest_crop(photo[:100, :70], 512).shape == (1, 3, 64, 64)


def test_degrading_does_not_move_the_picture() -> None:
    """A mark in the middle stays in the middle after enlarging: no half-pixel drift, which training would learn."""
    hr = torch.zeros(1, 3, 64, 64)
    hr[..., 24:40, 24:40] = 1.0
    at = torch.arange(64.0)
    for strength in ("mild", "real"):
        centres = []
        for seed in range(10):
            up = bicubic_up(degrade(hr, strength, torch.Generator().manual_seed(seed)), 4)[0].mean(dim=0)
            weight = (up - 0.3).clamp(min=0)
            centres.append(torch.stack([(weight.sum(dim=1) * at).sum(), (weight.sum(dim=0) * at).sum()]) / weight.sum())
        assert float((torch.stack(centres).mean(dim=0) - 31.5).abs().max()) < 0.35


def test_random_windows_are_the_same_place_of_both_pictures() -> None:
    x = torch.arange(2 * 3 * 10 * 12, dtype=torch.float32).reshape(2, 3, 10, 12)
    places = set()
    for seed in range(40):
        a, b = random_window(x, x + 1, 4, torch.Generator().manual_seed(seed))
        assert a.shape == (2, 3, 4, 4)
        torch.testing.assert_close(b, a + 1)
        places.add(float(a[0, 0, 0, 0]))
    assert len(places) > 20 and max(places) <= 6 * 12 + 8
    for side in (0, 10, 64):  # 0 = all; a side that does not fit
        assert random_window(x, x, side, torch.Generator())[0] is x


@pytest.mark.parametrize(("sigma", "threshold", "omega"), [(2.0, 4.0, 1.2), (8.0, 10.0, 0.3)])
def test_sharpening_raises_detail_and_nothing_else(sigma: float, threshold: float, omega: float) -> None:
    def of(x: Tensor, amount: float = 0.5) -> Tensor:
        return sharpened(x, amount, sigma, threshold)

    flat = torch.full((1, 3, 64, 72), 0.3)
    assert torch.allclose(of(flat), flat, atol=1e-6)
    wave = 0.4 * torch.sin(torch.arange(160.0) * omega).expand(1, 3, 160, 160)
    passed = math.exp(-0.5 * (omega * sigma) ** 2)  # what the Gaussian leaves of the wave
    inner = (..., slice(50, -50), slice(50, -50))
    gain = ((of(wave) - wave) / (0.5 * (1 - passed) * wave))[inner][wave[inner].abs() > 0.1]
    assert 0.8 < gain.min() <= gain.max() < 1.01  # the mask has gaps where the wave passes through zero
    faint = wave * (0.9 * 2 * threshold / 255 / 0.4)
    assert torch.equal(of(faint), faint)  # noise stays as it is
    assert of(wave * 2.4, 2.0).abs().max() == 1.0  # clamped
    assert of(wave, 0.0) is wave
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = of(wave)
    assert torch.equal(mixed, of(wave))
