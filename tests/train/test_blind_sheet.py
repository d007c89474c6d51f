"""The blind sheet: orders, key, votes and their count, with stand-ins for the methods' weights."""

import json
import logging
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from allosr2_core.errors import AlloSR2Error
from tests.support.tiny_training import write_photos
from train.evaluate.methods import OURS, Method
from train.evaluate.peers import bicubic_x4
from train.studies import blind_sheet as blind
from train.studies.contact_sheet import PEER

SIDE, CELL = 64, 64 + 4


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three test photographs and three real ones, one too small; ours is black, the peer white."""
    write_photos(tmp_path, "test", [(96, 128), (130, 100), (100, 100)])
    write_photos(tmp_path, "real-lq", [(90, 70), (12, 60), (200, 150)])

    def method(name: str, root: Path, checkpoint: Path | None = None) -> Method:
        return Method(name, name, lambda lr: bicubic_x4(lr) * 0 + (name != OURS))

    monkeypatch.setattr(blind, "load_method", method)
    monkeypatch.setattr(blind, "our_method", lambda checkpoint: method(f"ours at {checkpoint}", tmp_path))
    return tmp_path / "data"


def made(root: Path, out: Path, seed: int, *options: str) -> Path:
    arguments = ["--root", str(root), "--out", str(out), "--side", str(SIDE), "--seed", str(seed), *options]
    assert blind.main(arguments) == 0
    return out


def vote(folder: Path, want: str) -> None:
    """Keep the method `want` in every row, as somebody would who knows it."""
    key = json.loads((folder / blind.KEY).read_text())
    votes = {row: next(side for side in blind.SIDES if shown[side] == want) for row, shown in key.items()}
    (folder / blind.VOTES).write_text(json.dumps(votes))


def test_the_key_says_what_the_sheets_show(root: Path, tmp_path: Path) -> None:
    folder = made(root, tmp_path / "blind", 1)
    key = json.loads((folder / blind.KEY).read_text())
    assert list(key) == ["1", "2", "3", "4", "5"] and len({shown["picture"] for shown in key.values()}) == 5
    assert sorted(path.name for path in folder.glob("*.png")) == ["sheet-01.png", "sheet-02.png"]
    for row, shown in key.items():
        sheet, line = divmod(int(row) - 1, blind.ROWS)
        with Image.open(folder / f"sheet-{sheet + 1:02d}.png") as picture:
            x, y = blind.LABEL + 4, line * CELL
            cells = [picture.crop((x + i * CELL, y, x + i * CELL + SIDE, y + SIDE)).convert("L") for i in range(3)]
        left, right = (ImageStat.Stat(cell).mean[0] for cell in cells[1:])
        assert (left, right) == ((0, 255) if shown["left"] == OURS else (255, 0))
        assert shown["right"] == (PEER if shown["left"] == OURS else OURS)


def test_another_peer_is_counted_alike(root: Path, tmp_path: Path) -> None:
    folder = made(root, tmp_path / "blind", 1, "--peer", "bicubic")
    key = json.loads((folder / blind.KEY).read_text())
    assert all({shown["left"], shown["right"]} == {OURS, "bicubic"} for shown in key.values())
    vote(folder, "bicubic")
    votes = blind.read_votes(folder)
    assert votes.peer == "bicubic" and not any(votes.kept.values())


def test_another_checkpoint_stands_beside_ours_by_its_name(root: Path, tmp_path: Path) -> None:
    folder = made(root, tmp_path / "blind", 1, "--against", str(tmp_path / "older.safetensors"))
    key = json.loads((folder / blind.KEY).read_text())
    assert all({shown["left"], shown["right"]} == {OURS, "older"} for shown in key.values())
    vote(folder, OURS)
    votes = blind.read_votes(folder)
    assert votes.peer == "older" and all(votes.kept.values())
    with pytest.raises(AlloSR2Error, match="expected a file of another name than allosr2"):
        made(root, tmp_path / "same", 1, "--against", str(tmp_path / f"{OURS}.safetensors"))


def test_orders_agree_only_over_one_peer(root: Path, tmp_path: Path) -> None:
    folders = {}
    for name, peer, want in (("a", PEER, OURS), ("b", "bicubic", "bicubic"), ("c", PEER, OURS)):
        folder = made(root, tmp_path / name, len(folders), "--peer", peer)
        vote(folder, want)
        folders[name] = blind.read_votes(folder)
    assert blind.told(folders)[3:] == [f"the same picture kept in every order beside {PEER}: 5 of 5"]


def test_seeds_are_orders_of_the_same_pairs() -> None:
    pictures = [f"test/{i}.png" for i in range(40)]
    orders = [blind.in_random_order(pictures, seed) for seed in (1, 2)]
    assert blind.in_random_order(pictures, 1) == orders[0]
    for order in orders:
        assert sorted(index for index, _ in order) == list(range(40))
        assert all(pictures[index] == shown.picture for index, shown in order)
        assert 8 < sum(shown.left == OURS for _, shown in order) < 32
    assert [index for index, _ in orders[0]] != [index for index, _ in orders[1]]


def test_votes_are_counted_by_picture(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [made(root, tmp_path / name, seed) for name, seed in (("one", 1), ("two", 2))]
    vote(folders[0], OURS)
    vote(folders[1], PEER)
    assert set(blind.read_votes(folders[0]).kept.values()) == {True}
    with caplog.at_level(logging.INFO):
        assert blind.main(["--count", *map(str, folders)]) == 0
    assert [record.message for record in caplog.records][-3:] == [
        f"one: ours kept in 5 of 5 beside {PEER}, real photographs 2 of 2",
        f"two: ours kept in 0 of 5 beside {PEER}, real photographs 0 of 2",
        f"the same picture kept in every order beside {PEER}: 0 of 5",
    ]


def test_a_ballot_that_is_not_filled_in_is_refused(root: Path, tmp_path: Path) -> None:
    folder = made(root, tmp_path / "blind", 3)
    with pytest.raises(AlloSR2Error, match="left or right for row 1; got ''"):
        blind.main(["--count", str(folder)])
    (folder / blind.VOTES).write_text('{"1": "left"}')
    with pytest.raises(AlloSR2Error, match="a vote for each row of the key; they differ in 2, 3, 4, 5"):
        blind.main(["--count", str(folder)])
    for wrong in ("[1, 2]", '{"1": 3}', "{"):
        (folder / blind.KEY).write_text(wrong)
        with pytest.raises(AlloSR2Error, match=f"expected {blind.KEY} and {blind.VOTES} of `python -m train blind` in"):
            blind.main(["--count", str(folder)])
    shown = [{"picture": str(row), "left": OURS, "right": peer} for row, peer in ((1, PEER), (2, "bicubic"))]
    (folder / blind.KEY).write_text(json.dumps({"1": shown[0], "2": shown[1]}))
    (folder / blind.VOTES).write_text('{"1": "left", "2": "left"}')
    with pytest.raises(AlloSR2Error, match=f"expected a key with one peer; got bicubic, {PEER}"):
        blind.main(["--count", str(folder)])
    with pytest.raises(AlloSR2Error, match=f"expected {blind.KEY} and {blind.VOTES} of `python -m train blind` in"):
        blind.main(["--count", str(tmp_path)])


def test_votes_are_not_written_over(root: Path, tmp_path: Path) -> None:
    folder = made(root, tmp_path / "blind", 1)
    vote(folder, OURS)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(AlloSR2Error, match="expected a new folder; .*votes.json may have votes"):
        made(root, folder, 2)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
