"""Photos out of packages: containers, verification, credits, split loader; archives are built here, no network."""

import dataclasses
import hashlib
import io
import json
import platform
import shutil
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from train.data.sources import packages, photos
from train.data.sources.archives import PackageFile, embedded_images, largest_jpeg, read_package, resource_files
from train.data.sources.credits import UNKNOWN, find_statement, parse_copyright, statement_for
from train.downloads import package_clients

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2001, A. Author
           2002, B. Author
License: GPL-2+

Files: nature/*.jpg
       art/two.png
Copyright: 2003, C. Photographer
License: CC0-1.0

License: GPL-2+
 Text of the licence,
 .
 more of it.
"""


def encoded(width: int, height: int, kind: str = "JPEG", level: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(buffer, kind, quality=level)
    return buffer.getvalue()


def resource_bundle(files: dict[str, bytes], flags: int = 0) -> bytes:
    """A version 1 Qt resource bundle with one folder `pics` that holds the files."""
    names, offsets = b"", {}
    for name in ["pics", *files]:
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    contents, nodes = b"", [struct.pack(">IHII", 0, 2, 1, 1), struct.pack(">IHII", offsets["pics"], 2, len(files), 2)]
    for name, data in files.items():
        nodes.append(struct.pack(">IHHHI", offsets[name], flags, 0, 1, len(contents)))
        contents += struct.pack(">I", len(data)) + data
    header, tree = 20, b"".join(nodes)
    places = (header + len(contents) + len(names), header, header + len(contents))
    return b"qres" + struct.pack(">IIII", 1, *places) + contents + names + tree


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest_for(path: Path, entries: dict[str, bytes]) -> photos.Manifest:
    """A manifest of one wheel, `shots`, whose photos are named by `split/name`."""
    listed = []
    for key, data in entries.items():
        split, name = key.split("/")
        listed.append({"split": split, "package": "shots", "name": name, "width": 1, "height": 1, "sha256": sha(data)})
    package = {"fetch": "pypi", "requirement": "shots==1.0"}
    path.write_text(json.dumps({"packages": {"shots": package}, "photos": listed}))
    return photos.load_manifest(path)


def wheel(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "shots-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    return archive


def test_largest_jpeg_of_an_eet_blob_is_cut_out_exactly() -> None:
    small, large = encoded(16, 12), encoded(64, 48)
    blob = b"\x1e\xe7\x0f\x42head" + small + b"\x00\x07between" + large + b"\x00tail" + small + b"end"
    assert largest_jpeg(blob) == large
    assert largest_jpeg(b"no picture here") is None
    assert [f.data for f in embedded_images(PackageFile("a/b.edj", blob))] == [large]
    assert list(embedded_images(PackageFile("a/b.txt", blob))) == []


def test_resource_bundle_gives_names_and_bytes() -> None:
    files = {"one.webp": encoded(20, 10, "WEBP"), "two.jpg": encoded(12, 9), "note.txt": b"not a picture"}
    bundle = resource_bundle(files)
    assert {f.path: f.data for f in resource_files(bundle)} == {f"pics/{k}": v for k, v in files.items()}
    images = {f.path for f in embedded_images(PackageFile("x/all.rcc", bundle))}
    assert images == {"x/all.rcc!pics/one.webp", "x/all.rcc!pics/two.jpg"}
    assert list(resource_files(resource_bundle(files, flags=1))) == []  # compressed entries are not photos as published


def test_damaged_resource_bundles_are_refused() -> None:
    bundle = resource_bundle({"one.jpg": encoded(12, 9)})
    with pytest.raises(AlloSR2Error, match="resource bundle"):
        list(resource_files(b"RIFF" + bundle))
    with pytest.raises(AlloSR2Error, match="damaged"):
        list(resource_files(bundle[:-20]))
    looped = bundle[: -3 * 14] + struct.pack(">IHII", 0, 2, 1, 0) + bundle[-2 * 14 :]
    with pytest.raises(AlloSR2Error, match="loop"):
        list(resource_files(looped))


def test_photos_are_taken_from_every_container_and_verified(tmp_path: Path) -> None:
    plain, inner, large = encoded(30, 20, "PNG"), encoded(20, 10, "WEBP"), encoded(64, 48)
    entries = {"train/a.png": plain, "val/b.webp": inner, "real-lq/c.jpg": large}
    manifest = manifest_for(tmp_path / "photos.json", entries)
    files = {"s/a.png": plain, "s/b.rcc": resource_bundle({"q.webp": inner}), "s/c.edj": encoded(8, 8) + large}
    wheel(tmp_path / "packages", files)
    root = tmp_path / "photos"
    photos.prepare(manifest, root, tmp_path / "packages")
    assert {key: (root / key).read_bytes() for key in entries} == entries
    credits = json.loads((root / "credits.json").read_text())
    assert credits["val/b.webp"]["path"] == "s/b.rcc!pics/q.webp"
    assert photos.load_split(root, "train") == [root / "train" / "a.png"]

    before = (root / "train/a.png").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "packages")  # a second run only verifies: it needs no package
    photos.prepare(manifest, root, tmp_path / "packages")
    assert (root / "train/a.png").stat().st_mtime_ns == before


def test_damaged_photo_is_replaced(tmp_path: Path) -> None:
    data = encoded(30, 20)
    manifest = manifest_for(tmp_path / "photos.json", {"val/a.jpg": data})
    wheel(tmp_path / "packages", {"a.jpg": data})
    target = tmp_path / "photos/val/a.jpg"
    target.parent.mkdir(parents=True)
    target.write_bytes(data[:100])
    photos.prepare(manifest, tmp_path / "photos", tmp_path / "packages")
    assert target.read_bytes() == data


def test_manifest_mismatch_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    good, expected, other = encoded(30, 20), encoded(31, 20), encoded(32, 20)
    manifest = manifest_for(tmp_path / "photos.json", {"val/good.jpg": good, "val/changed.jpg": expected})
    wheel(tmp_path / "packages", {"good.jpg": good, "changed.jpg": other})
    with pytest.raises(AlloSR2Error, match="1 of 2 photos are missing") as failure:
        photos.prepare(manifest, tmp_path / "photos", tmp_path / "packages")
    assert "val/changed.jpg" in str(failure.value) and "val/good.jpg" not in str(failure.value)
    assert [p.name for p in (tmp_path / "photos/val").iterdir()] == ["good.jpg"]


def test_failing_client_leaves_no_archive_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **kwargs: object) -> subprocess.CompletedProcess[str]:
        (Path(str(kwargs["cwd"])) / "half.deb").write_bytes(b"half")
        return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package shots")

    monkeypatch.setattr(package_clients.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(packages.subprocess, "run", fail)
    with pytest.raises(AlloSR2Error, match="apt-get update") as failure:
        packages.fetch_packages([packages.Package("shots", "deb", "shots")], tmp_path / "packages")
    assert "Unable to locate package shots" in str(failure.value)
    assert list((tmp_path / "packages").iterdir()) == []


def test_debian_package_is_read_without_unpacking(tmp_path: Path) -> None:
    program = shutil.which("dpkg-deb")
    assert program is not None, "expected dpkg-deb, which comes with every Debian"
    tree = tmp_path / "tree"
    for name, data in {"DEBIAN/control": b"", "usr/share/p/a.jpg": b"A", "usr/share/p/b.txt": b"B"}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    control = "Package: shots\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(control)
    archive = tmp_path / "shots_1_all.deb"
    subprocess.run([program, "--build", "-Znone", str(tree), str(archive)], check=True, capture_output=True)
    found = list(read_package(archive, lambda path: path.endswith(".jpg")))
    assert found == [PackageFile("usr/share/p/a.jpg", b"A")]
    archive.write_bytes(b"not a package")
    with pytest.raises(AlloSR2Error, match="not a readable Debian package"):
        list(read_package(archive, lambda path: True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "tests"}, "unknown split"),
        ({"name": "../a.jpg"}, "plain image file name"),
        ({"package": "other"}, "package 'other'"),
        ({"colour": "red"}, "not a photo manifest"),
    ],
)
def test_bad_manifests_are_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = tmp_path / "photos.json"
    manifest_for(path, {"val/a.jpg": b"x"})
    raw = json.loads(path.read_text())
    raw["photos"][0].update(change)
    path.write_text(json.dumps(raw))
    with pytest.raises(AlloSR2Error, match=message):
        photos.load_manifest(path)


def tarball(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / name, "w:gz") as bundle:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            bundle.addfile(member, io.BytesIO(data))
    return folder / name


def test_photos_of_an_npm_package_carry_its_licence_and_the_author_of_the_manifest(tmp_path: Path) -> None:
    files = {"package/package.json": b'{"license": "MIT"}', "package/dist/a.jpg": encoded(8, 6), "package/b.jpg": b"no"}
    tarball(tmp_path / "packages", "scope-shots-1.0.tgz", files)
    package = packages.Package("shots", "npm", "@scope/shots@1.0")
    listed = photos.Photo("train", "shots", "one.jpg", 8, 6, sha(files["package/dist/a.jpg"]), author="A. Uthor")
    photos.prepare(photos.Manifest({"shots": package}, (listed,)), tmp_path / "photos", tmp_path / "packages")
    assert (tmp_path / "photos/train/one.jpg").read_bytes() == files["package/dist/a.jpg"]
    credit = photos.read_credits(tmp_path / "photos/credits.json")["train/one.jpg"]
    assert (credit["author"], credit["license"]) == ("A. Uthor", "MIT")
    assert credit["stated_in"] == "package.json, licence of the whole package; author: the photo's name"


@pytest.mark.parametrize(
    ("description", "license_name"),
    [
        (b'{"license": {"type": "ISC"}}', "ISC"),
        (b'{"licenses": [{"type": "MIT"}, {"type": "GPL-2.0"}]}', "MIT or GPL-2.0"),
        (b'{"license": null}', UNKNOWN),
        (b"[1]", UNKNOWN),
        (b"{", UNKNOWN),
    ],
)
def test_licences_in_older_forms_and_none(description: bytes, license_name: str) -> None:
    assert find_statement({"package/package.json": description}, "package/a.jpg", "", "").license == license_name


def test_without_npm_and_with_a_damaged_package_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = packages.Package("shots", "npm", "@scope/shots@1.0")
    monkeypatch.setattr(package_clients.shutil, "which", lambda _: None)
    with pytest.raises(AlloSR2Error, match="npm not found: @scope/shots@1.0"):
        packages.fetch_packages([package], tmp_path)
    whole = tarball(tmp_path, "scope-shots-1.0.tgz", {"package/a.jpg": encoded(8, 6) * 400})
    archive = packages.fetch_packages([package], tmp_path)["shots"]
    assert archive == whole
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(AlloSR2Error, match="not a readable npm package .* delete it and run again"):
        list(read_package(archive, lambda _: True))


def test_own_manifest_is_sound_and_test_photos_are_not_trained_on() -> None:
    manifest = photos.load_manifest()
    counts = {split: sum(p.split == split for p in manifest.photos) for split in photos.SPLITS}
    assert counts == {"train": 564, "val": 16, "val-dense": 22, "test": 41, "real-lq": 34}
    assert len({p.sha256 for p in manifest.photos}) == len(manifest.photos)
    packages = {split: {p.package for p in manifest.photos if p.split == split} for split in photos.SPLITS}
    assert not packages["val-dense"] & packages["train"]  # nor on another picture of the same people


def test_load_split_errors_give_the_command(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match="python -m train photos --root"):
        photos.load_split(tmp_path, "val")
    with pytest.raises(AlloSR2Error, match="expected one of train, val, val-dense, test, real-lq"):
        photos.load_split(tmp_path, "dev")


def test_credits_say_what_they_rest_on() -> None:
    paragraphs = parse_copyright(COPYRIGHT)
    named = statement_for(paragraphs, "nature/one.jpg")
    converted = statement_for(paragraphs, "art/two.webp")
    general = statement_for(paragraphs, "sound/three.ogg")
    assert named is not None and converted is not None and general is not None
    assert (named.author, named.license) == ("2003, C. Photographer", "CC0-1.0")
    assert (converted.license, general.license) == ("CC0-1.0", "GPL-2+")
    assert general.author == "2001, A. Author; 2002, B. Author"
    assert len({named.stated_in, converted.stated_in, general.stated_in}) == 3


def test_metadata_beside_the_photo_comes_first() -> None:
    wallpaper = json.dumps({"KPlugin": {"License": "LGPLv3", "Authors": [{"Name": "W. Paper"}]}}).encode()
    puzzle = b"[Desktop Entry]\nX-KDE-PluginInfo-Author=P. Uzzle\nX-KDE-PluginInfo-License=Public Domain\n"
    files = {
        "usr/share/doc/p/copyright": COPYRIGHT.encode(),
        "usr/share/w/Sea/metadata.json": wallpaper,
        "usr/share/p/bee.desktop": puzzle,
        "usr/share/p/broken.desktop": b"no section",
    }
    sea = find_statement(files, "usr/share/w/Sea/contents/images/1.jpg", "usr/share/w/", "")
    bee = find_statement(files, "usr/share/p/bee.jpg", "usr/share/p/", "")
    assert (sea.author, sea.license) == ("W. Paper", "LGPLv3")
    assert (bee.author, bee.license) == ("P. Uzzle", "Public Domain")
    assert find_statement(files, "usr/share/p/broken.jpg", "usr/share/p/", "nature/").license == "CC0-1.0"
    prose = {"usr/share/doc/q/copyright": b"see /usr/share/common-licenses/GPL-2."}
    assert find_statement(prose, "usr/share/q/x.jpg", "", "").license == "GPL-2"


# ---- packages of another release ----

STANZA = """Types: deb
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://mirror.example/security
Suites: bookworm-security
Components: main
"""
LINES = (
    "# deb https://old.example bookworm main\ndeb [arch=amd64] https://mirror.example/debian bookworm main contrib\n"
)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "sources.list.d/debian.sources",
            STANZA,
            STANZA.split("\n\n")[0].replace("bookworm bookworm-updates", "trixie").replace("main contrib", "main")
            + "\n",
        ),
        ("sources.list", LINES, "deb [arch=amd64] https://mirror.example/debian trixie main\n"),
    ],
)
def test_another_release_is_sought_where_this_one_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: str
) -> None:
    system = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: system)
    (tmp_path / "apt" / "sources.list.d").mkdir(parents=True)
    (tmp_path / "apt" / name).write_text(text)
    (tmp_path / "work").mkdir()
    options = package_clients.apt_options("trixie", tmp_path / "work", tmp_path / "apt")
    places = dict(option.split("=", 1) for option in options[1::2])
    assert options[::2] == ["-o"] * 3 and Path(places["Dir::Etc::SourceList"]).read_text() == expected
    assert Path(places["Dir::Etc::SourceList"]).suffix == Path(name).suffix
    assert (Path(places["Dir::State::Lists"]) / "partial").is_dir() and places["Dir::Etc::SourceParts"] == "/dev/null"
    assert package_clients.apt_options("bookworm", tmp_path / "work", tmp_path / "apt") == []
    system["ID"] = "ubuntu"
    with pytest.raises(AlloSR2Error, match="expected Debian with its archive in .* to fetch packages of trixie"):
        package_clients.apt_options("trixie", tmp_path / "work", tmp_path / "apt")


def test_photos_of_another_release_are_left_out_where_it_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = encoded(30, 20)
    manifest = manifest_for(tmp_path / "photos.json", {"train/a.jpg": data})
    wheel(tmp_path / "packages", {"a.jpg": data})
    other = packages.Package("other", "deb", "other", release="trixie")
    absent = dataclasses.replace(manifest.photos[0], package="other", name="b.jpg", sha256="0" * 64)
    both = photos.Manifest(manifest.packages | {"other": other}, (*manifest.photos, absent))

    def refuse(release: str, folder: Path) -> list[str]:
        raise AlloSR2Error(f"no {release} here")

    monkeypatch.setattr(packages, "apt_options", refuse)
    found = photos.prepare(both, tmp_path / "photos", tmp_path / "packages")
    assert [photo.name for photo in found] == ["a.jpg"]
    assert "other left out: no trixie here" in caplog.text
