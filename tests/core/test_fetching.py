"""What is fetched for the tests is what was pinned, whole or not there at all, and what cannot be had says why."""

import dataclasses
from pathlib import Path

import chromium
import pytest
from package_archive import FetchError, Package, made_once


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without programs, and an empty cache."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(chromium, "CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("nothing")
def test_without_a_chromium_every_way_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(chromium.platform, "system", lambda: "Linux")
    with pytest.raises(FetchError) as caught:
        chromium.find()
    for words in ("npm was not found", "is on the PATH", "apt-get and root", "$CHROMIUM"):
        assert words in str(caught.value)


def test_a_wrong_name_in_chromium_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", "/no/such/program")
    with pytest.raises(FetchError, match="/no/such/program"):
        chromium.find()


@pytest.mark.usefixtures("nothing")
def test_a_chromium_on_the_path_is_taken(tmp_path: Path) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert chromium.find().program == program


def write_fake_npm(folder: Path) -> None:
    """A client that packs whatever it is asked for into a file of five bytes."""
    npm = folder / "npm"
    npm.write_text("#!/bin/sh\nprintf bytes > archive.tgz\n")
    npm.chmod(0o755)


PINNED = Package("npm", "thing", "1.0", "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9")


def test_another_archive_than_the_pinned_one_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fake_npm(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    target = tmp_path / "cache" / "thing"
    with pytest.raises(FetchError, match="expected sha256 000"):
        made_once(target, dataclasses.replace(PINNED, sha256="000"), lambda archive, made: None)
    assert list(target.parent.iterdir()) == []


def test_a_folder_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fake_npm(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    target = tmp_path / "cache" / "thing"

    def broken(archive: Path, made: Path) -> None:
        (made / "half").touch()
        raise FetchError("not an archive")

    with pytest.raises(FetchError, match="not an archive"):
        made_once(target, PINNED, broken)
    assert not target.exists()
    made_once(target, PINNED, lambda archive, made: (made / "copy").write_bytes(archive.read_bytes()))
    assert (target / "copy").read_bytes() == b"bytes"
    made_once(target, PINNED, broken)  # not called again
    assert [path.name for path in target.iterdir()] == ["copy"]
