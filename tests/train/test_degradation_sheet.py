"""The contact sheet of degradations, by its command."""

from pathlib import Path

import pytest
from PIL import Image

from tests.support.tiny_training import tiny_table, to_toml, write_photos
from train.__main__ import main


def test_the_sheet_shows_every_strength_twice(tmp_path: Path) -> None:
    (photo,) = write_photos(tmp_path, "val", [(90, 130)])
    out = tmp_path / "out" / "sheet.png"
    assert main(["degradations", str(photo), "--out", str(out), "--columns", "2", "--side", "64"]) == 0
    with Image.open(out) as sheet:
        assert sheet.size == (3 * 64 + 2 * 4, 6 * 64 + 5 * 4)
        cells = [sheet.crop((x, y, x + 64, y + 64)).tobytes() for y in range(0, 400, 68) for x in (0, 68, 136)]
    assert len(set(cells)) == 1 + 6 * 2  # the photograph once, everything else differs
    config = tmp_path / "tiny.toml"
    config.write_text(to_toml(tiny_table(tmp_path)), encoding="utf-8")
    again = tmp_path / "again.png"
    assert main(["degradations", "--config", str(config), "--out", str(again), "--columns", "2", "--side", "64"]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_what_is_no_picture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_text("no")
    assert main(["degradations", str(tmp_path / "text.png"), "--out", str(tmp_path / "sheet.png")]) == 1
    assert "text.png: expected an image" in capsys.readouterr().err
    assert not (tmp_path / "sheet.png").exists()
