"""The contact sheet of results, by its command, with stand-ins for the methods' weights."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageStat

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.read import load_image
from tests.support.tiny_training import write_photos
from train.evaluate.crops import load_photos
from train.evaluate.methods import Method
from train.evaluate.peers import bicubic_x4
from train.loop.preview import busiest_window
from train.studies import contact_sheet as sheet


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two test photographs and three real ones, one of them too small; methods that need no download."""
    write_photos(tmp_path, "test", [(96, 128), (130, 100)])
    write_photos(tmp_path, "real-lq", [(90, 70), (12, 60), (200, 150)])

    def method(name: str, root: Path, checkpoint: Path | None) -> Method:
        return Method(name, name, bicubic_x4 if name == sheet.PEER else lambda lr: 1.0 - bicubic_x4(lr).clamp(0, 1))

    monkeypatch.setattr(sheet, "load_method", method)
    return tmp_path / "data"


def test_the_sheet_has_a_row_per_picture_and_white_where_there_is_no_photograph(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "sheet.png"
    assert sheet.main(["--root", str(root), "--out", str(out), "--side", "64", "--crops", "2", "--real-lq", "8"]) == 0
    cell = 64 + 4
    with Image.open(out) as picture:
        rgb = picture.convert("RGB")
    assert rgb.size == (8 * cell - 4, 2 * cell - 4)  # four rows, two side by side
    cells = [rgb.crop((x, y, x + 64, y + 64)) for y in (0, cell) for x in range(0, 8 * cell, cell)]
    assert cells[3].getextrema() != cells[11].getextrema() == ((255, 255),) * 3  # a photograph; none for a real one
    assert cells[15].getextrema() == ((255, 255),) * 3
    peer, ours = (ImageStat.Stat(cells[i].convert("L")).mean[0] for i in (1, 2))  # ours is the negative here
    assert peer + ours == pytest.approx(255, abs=2)
    flat = cells[0].resize((16, 16), Image.Resampling.NEAREST).resize((64, 64), Image.Resampling.NEAREST)
    assert flat.tobytes() == cells[0].tobytes()  # an input of 16 x 16 px, its pixels repeated


def test_a_free_sheet_has_only_what_may_be_given_away(root: Path, tmp_path: Path) -> None:
    names = sorted(f"{path.parent.name}/{path.name}" for path in (root / "photos").glob("*/*.png"))
    licences = dict.fromkeys(names, "CC-BY-4.0") | {names[1]: "Public Domain", names[-1]: "CC0-1.0"}
    assert names[1].startswith("real-lq/") and names[-1].startswith("test/")
    (root / "photos" / "credits.json").write_text(json.dumps({name: {"license": v} for name, v in licences.items()}))
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheet, "load_image", lambda path: seen.append(path.name) or load_image(path))
        photos = lambda paths: [seen.append(path.name) for path in paths] and load_photos(paths)  # noqa: E731
        patch.setattr(sheet, "load_photos", photos)
        out = tmp_path / "free.png"
        assert sheet.main(["--root", str(root), "--out", str(out), "--side", "32", "--free"]) == 0
    assert sorted(seen) == sorted(name.split("/")[1] for name in (names[1], names[-1]))
    assert out.exists()
    (root / "photos" / "credits.json").unlink()
    with pytest.raises(AlloSR2Error, match="CC0 or public domain in .*there are none"):
        sheet.main(["--root", str(root), "--out", str(tmp_path / "no.png"), "--side", "32", "--free"])


def test_a_side_that_does_not_fit_is_refused(root: Path, tmp_path: Path) -> None:
    for side in ("50", "0", "1024"):
        with pytest.raises(AlloSR2Error, match="multiple of 32"):
            sheet.main(["--root", str(root), "--out", str(tmp_path / "no.png"), "--side", side])


def test_the_busiest_window_is_found() -> None:
    picture = torch.zeros(3, 96, 128)
    picture[:, 48:64, 80:96] = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    assert busiest_window(picture, 32, step=16) in {(32, 64), (48, 64), (32, 80), (48, 80)}
