"""Fonts and vector drawings out of Debian packages, which `drawings.json` names with version and sha256.

The splits share no font and no drawing: a package goes to one split, or its folders or families are divided.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from allosr2_core.errors import AlloSR2Error

from ..sources.archives import read_package
from ..sources.packages import Package, fetch_packages
from .words import SAMPLES

MANIFEST = Path(__file__).parents[2] / "drawings.json"
SPLITS = ("train", "val", "test")
KINDS = ("fonts", "drawings")
LARGEST_DRAWING = 150_000
"""Bytes of SVG text; longer ones take seconds to rasterise."""
_MISSING = "\U0010fffe"


@dataclass(frozen=True)
class Listed:
    """One package of the manifest."""

    name: str
    version: str
    sha256: str
    kind: str
    files: dict[str, str]
    """Regular expression of the paths that go to a split, by split."""


@dataclass(frozen=True, eq=False)
class Typeface:
    """One font file; equal only to itself."""

    name: str
    data: bytes = field(repr=False)

    @functools.lru_cache(maxsize=64)  # noqa: B019  # typefaces live as long as the process
    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """The font at `size` px, laid out glyph by glyph: no system library has a say."""
        return ImageFont.truetype(io.BytesIO(self.data), size, layout_engine=ImageFont.Layout.BASIC)

    def covers(self, text: str) -> bool:
        """Whether every letter has a glyph of its own, no box for missing ones."""
        box = self._glyph(_MISSING)
        return all(any(glyph) and glyph != box for glyph in map(self._glyph, text))

    def _glyph(self, letter: str) -> bytes:
        canvas = Image.new("L", (48, 48))
        ImageDraw.Draw(canvas).text((8, 8), letter, font=self.at(24), fill=255)
        return canvas.tobytes()

    @functools.cached_property
    def monospaced(self) -> bool:
        """Whether thin and wide letters take the same room."""
        font = self.at(32)
        return len({font.getlength(letter) for letter in "iW0."}) == 1

    @functools.cached_property
    def scripts(self) -> tuple[str, ...]:
        """The scripts of `words.SAMPLES` that it can write."""
        return tuple(script for script, sample in SAMPLES.items() if self.covers(sample))


@dataclass(frozen=True)
class Assets:
    """What the pictures of one split are made of."""

    fonts: tuple[tuple[Typeface, ...], ...]
    """By package: one with many weights is not drawn more often than one with a single weight."""
    drawings: tuple[tuple[str, ...], ...]
    """SVG texts by package."""
    photos: tuple[Path, ...]


def load_manifest(path: Path = MANIFEST) -> tuple[Listed, ...]:
    """The packages. Raises AlloSR2Error for unknown keys, kinds or splits, and for patterns that are none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        packages = tuple(Listed(name=name, **fields) for name, fields in raw["packages"].items())
        for package in packages:
            for pattern in package.files.values():
                re.compile(pattern)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, re.error) as error:
        raise AlloSR2Error(f"{path} is not a manifest of fonts and drawings: {error}") from error
    for package in packages:
        if package.kind not in KINDS or not set(package.files) <= set(SPLITS):
            raise AlloSR2Error(
                f"{path}: {package.name}: expected one of the kinds {', '.join(KINDS)} and splits of "
                f"{', '.join(SPLITS)}; got {package.kind!r} and {', '.join(package.files)}"
            )
    return packages


def fetch(packages: Sequence[Listed], folder: Path) -> dict[str, Path]:
    """Verified archives by package name; what is not in `folder` yet is fetched.

    Raises:
        AlloSR2Error: the client fails, or an archive is another one than the manifest names.
    """
    archives = fetch_packages([Package(package.name, "deb", package.name) for package in packages], folder)
    for package in packages:
        archive = archives[package.name]
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != package.sha256:
            raise AlloSR2Error(
                f"{archive}: expected {package.name} {package.version} of Debian 12 with sha256 {package.sha256}, "
                f"got {found}: delete it, run `apt-get update` as root, and run again"
            )
    return archives


def load_assets(split: str, archives: dict[str, Path], packages: Sequence[Listed], photos: Sequence[Path]) -> Assets:
    """Fonts and drawings of one split, sorted by path. Raises AlloSR2Error where a package holds none."""
    found: dict[str, list[tuple]] = {kind: [] for kind in KINDS}
    for package in packages:
        if split not in package.files:
            continue
        pattern = re.compile(package.files[split])
        files = read_package(archives[package.name], lambda path, pattern=pattern: bool(pattern.search(path)))
        if package.kind == "fonts":
            held = [Typeface(file.path, file.data) for file in sorted(files, key=lambda file: file.path)]
            held = [face for face in held if face.scripts]
        else:
            held = [file.data.decode("utf-8", errors="replace") for file in sorted(files, key=lambda f: f.path)]
            held = [text for text in held if _self_contained(text)]
        if not held:
            raise AlloSR2Error(f"{archives[package.name]}: expected {package.kind} matching {pattern.pattern}")
        found[package.kind].append(tuple(held))
    return Assets(tuple(found["fonts"]), tuple(found["drawings"]), tuple(photos))


def _self_contained(svg: str) -> bool:
    """Pure shapes: no embedded bitmap, whose edges are not exact, and no text, whose font is elsewhere."""
    return len(svg) < LARGEST_DRAWING and "<image" not in svg and "<text" not in svg and "<flowRoot" not in svg
