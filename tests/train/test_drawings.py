"""Made pictures: exact edges, one picture per seed, splits that share nothing. Fonts are Pillow's own; no network."""

import io
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from allosr2_core.errors import AlloSR2Error
from tests.support.tiny_training import tiny_table, to_toml
from train.config_file import load_config
from train.data.drawings import assets, command, lines, patterns, words
from train.data.drawings.assets import SPLITS, Assets, Typeface, load_manifest
from train.data.drawings.icons import rasterised
from train.data.drawings.kit import Kit, luma, reduced, sheet
from train.data.drawings.planes import corners, projection
from train.data.sources.archives import PackageFile

SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><rect width="5" height="10" fill="#f00"/></svg>"""
SIDE = 128
CONFIGS = Path(__file__).resolve().parents[2] / "train" / "configs"


@pytest.fixture(scope="module")
def typeface() -> Typeface:
    built_in = ImageFont.load_default(20)
    assert isinstance(built_in, ImageFont.FreeTypeFont) and isinstance(built_in.path, io.BytesIO)
    return Typeface("built in", built_in.path.getvalue())


@pytest.fixture(scope="module")
def some(typeface: Typeface, tmp_path_factory: pytest.TempPathFactory) -> Assets:
    photo = tmp_path_factory.mktemp("photos") / "photo.png"
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)
    return Assets(((typeface,),), ((SVG,),), (photo,))


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_family_draws_one_picture_per_seed(some: Assets, split: str) -> None:
    for kind, own in command.families(split).items():
        for index in range(len(own)):
            first, again, other = (command.picture(some, split, kind, index, SIDE, seed) for seed in (3, 3, 4))
            assert first.mode == "RGB" and first.size == (SIDE, SIDE)
            assert first.tobytes() == again.tobytes(), own[index].__name__
            assert first.tobytes() != other.tobytes(), own[index].__name__


def test_edges_are_exact(some: Assets) -> None:
    """An edge of a drawn square is one pixel wide at most, wherever it lies."""
    canvas = sheet(8, (255, 255, 255))
    canvas.paste((0, 0, 0), (10, 0, 32, 32))  # 2.5 px from the left
    row = np.asarray(reduced(canvas))[4, :, 0]
    assert row.tolist() == [255, 255, 128, 0, 0, 0, 0, 0]
    cut = rasterised(SVG, 64, 64)
    assert cut is not None
    assert np.unique(np.asarray(cut)[..., 3]).tolist() == [0, 255]


@pytest.mark.parametrize("family", [lines.grid, patterns.bricks])
def test_families_are_as_sharp_as_their_edges(some: Assets, family: command.Family) -> None:
    """Somewhere the picture changes by half of its range from one pixel to the next, as no blurred one does."""
    grey = np.stack([np.asarray(family(Kit(seed, some, SIDE)).convert("L"), dtype=float) for seed in range(4)])
    steps = np.abs(np.diff(grey, axis=2)).max(axis=(1, 2))
    assert (steps > 0.5 * (grey.max(axis=(1, 2)) - grey.min(axis=(1, 2)))).all()


def test_pictures_that_are_there_are_kept_and_more_change_none(some: Assets, tmp_path: Path) -> None:
    assert command.make(some, "train", tmp_path, 3, SIDE, 0) == 3
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(kept) == ["line-0000.png", "text-0000.png", "text-0001.png"]
    (tmp_path / "line-0000.png").write_bytes(b"mine")
    (tmp_path / "text-0001.png").unlink()
    assert command.make(some, "train", tmp_path, 4, SIDE, 0) == 2
    assert (tmp_path / "line-0000.png").read_bytes() == b"mine"
    assert (tmp_path / "text-0001.png").read_bytes() == kept["text-0001.png"]
    assert (tmp_path / "line-0001.png").exists()


def test_a_folder_made_otherwise_is_refused(tmp_path: Path) -> None:
    command.check_recipe(tmp_path, {"seed": 0})
    command.check_recipe(tmp_path, {"seed": 0})
    with pytest.raises(AlloSR2Error, match="choose another --out"):
        command.check_recipe(tmp_path, {"seed": 1})


def test_splits_share_no_package_folder_and_no_word() -> None:
    packages = load_manifest()
    for package in packages:
        assert re.fullmatch("[0-9a-f]{64}", package.sha256), package.name
    for kind in assets.KINDS:
        for split in SPLITS:
            assert any(package.kind == kind and split in package.files for package in packages), (kind, split)
    divided = {package.name for package in packages if len(package.files) > 1}
    assert divided == {"culmus", "openclipart-svg"}
    trained, held_out = (
        {word for script in words.WORDS for word in words.vocabulary(script, held)} for held in (False, True)
    )
    assert trained and held_out and not trained & held_out
    trained, tested = (
        {family for own in command.families(split).values() for family in own} for split in ("train", "test")
    )
    assert len(tested - trained) > len(tested) // 2


def test_divided_packages_give_no_file_to_two_splits() -> None:
    """Names as they are in the two packages: a folder or a family goes to one split."""
    names = [
        f"usr/share/openclipart/svg/{folder}/a.svg" for folder in ("animals", "food/fruit", "tools", "transportation")
    ]
    names += [f"usr/share/fonts/truetype/culmus/{family}CLM-Bold.ttf" for family in ("David", "Miriam", "FrankRuehl")]
    for package in load_manifest():
        if package.name in ("culmus", "openclipart-svg"):
            for name in names:
                assert sum(bool(re.search(pattern, name)) for pattern in package.files.values()) <= 1, name


def test_letters_without_a_glyph_are_noticed(typeface: Typeface) -> None:
    assert typeface.covers("abcXYZ019")
    assert not typeface.covers("abc道")
    assert "latin" in typeface.scripts and "japanese" not in typeface.scripts


def test_ink_can_be_read_on_its_paper(some: Assets) -> None:
    for seed in range(200):
        paper, ink = Kit(seed, some, SIDE).paper_and_ink()
        assert abs(luma(paper) - luma(ink)) > 90


def test_drawings_with_bitmaps_or_text_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = [PackageFile("a.svg", SVG.encode()), PackageFile("b.svg", b"<svg><image/></svg>")]
    monkeypatch.setattr(assets, "read_package", lambda archive, wanted: [file for file in files if wanted(file.path)])
    listed = assets.Listed("icons", "1", "0" * 64, "drawings", {"train": r"\.svg$"})
    assert assets.load_assets("train", {"icons": tmp_path}, [listed], []).drawings == ((SVG,),)
    with pytest.raises(AlloSR2Error, match="expected drawings matching"):
        only_bitmaps = assets.Listed("icons", "1", "0" * 64, "drawings", {"train": r"b\.svg$"})
        assets.load_assets("train", {"icons": tmp_path}, [only_bitmaps], [])


def test_an_archive_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "icons_2_all.deb").write_bytes(b"another")
    listed = assets.Listed("icons", "1", "0" * 64, "drawings", {"train": "."})
    with pytest.raises(AlloSR2Error, match="expected icons 1 of Debian 12"):
        assets.fetch([listed], tmp_path)


def test_projection_takes_corners_to_corners() -> None:
    source = [(1.0, 2.0), (9.0, 1.0), (8.0, 7.0), (2.0, 9.0)]
    a, b, c, d, e, f, g, h = projection(source, corners(4, 4))
    for (x, y), (u, v) in zip(source, corners(4, 4), strict=True):
        w = g * u + h * v + 1
        assert ((a * u + b * v + c) / w, (d * u + e * v + f) / w) == pytest.approx((x, y))


def test_pictures_are_made_only_for_a_configuration_that_trains_on_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What `make train-mini` asks; the second configuration has no photographs to draw on."""
    table, without, needs = tiny_table(tmp_path), tmp_path / "without.toml", tmp_path / "needs.toml"
    without.write_text(to_toml(table), encoding="utf-8")
    table["data"]["sources"] = [{"hr": str(tmp_path / "drawings" / "train"), "lr": "", "weight": 1.0}]
    needs.write_text(to_toml(table), encoding="utf-8")
    options = ["--out", str(tmp_path / "drawings"), "--photos", str(tmp_path / "none"), "--train", "0", "--val", "0"]
    with caplog.at_level(logging.INFO):
        assert command.main([*options, "--test", "0", "--for", str(without)]) == 0
    assert "trains on nothing in" in caplog.text and not (tmp_path / "drawings").exists()
    assert command.trains_on(load_config(needs), tmp_path / "drawings")
    assert not command.trains_on(load_config(needs), tmp_path / "other")
    shipped = {
        path.stem for path in CONFIGS.glob("*.toml") if command.trains_on(load_config(path), Path("data/drawings"))
    }
    assert shipped == {"mini_adversarial", "mini_contrast"}
