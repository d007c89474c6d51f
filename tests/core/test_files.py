"""Files appear whole or not at all."""

import os
from pathlib import Path

import pytest

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import replacing, write_atomically


def test_a_file_is_written_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text"
    write_atomically(path, lambda partial: partial.write_text("new"))
    assert path.read_text() == "new" and os.listdir(path.parent) == ["text"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("old")

    def fails(partial: Path) -> None:
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fails)
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["text"]


def test_nothing_is_in_place_before_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "text"
    with replacing(path) as file:
        file.write(b"all")
        assert not path.exists()
    assert path.read_bytes() == b"all"


def test_links_are_followed_and_names_may_be_as_long_as_they_get(tmp_path: Path) -> None:
    target, link, long = tmp_path / "target", tmp_path / "link", tmp_path / ("n" * 255)
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, lambda partial: partial.write_text("new"))
    assert link.is_symlink() and target.read_text() == "new"
    write_atomically(long, lambda partial: partial.write_text("long"))
    assert long.read_text() == "long"


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "absent" / "file"):
        with pytest.raises(AlloSR2Error, match="could not be written"), replacing(path):
            pytest.fail("nothing is to be written")
    with pytest.raises(OSError):
        write_atomically(tmp_path / "folder", lambda partial: partial.write_text("x"))
    assert os.listdir(tmp_path) == ["folder"]
