"""Which picture goes to which file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import AlloSR2Error
from ..image.read import Header
from ..image.write import WRITABLE_SUFFIXES
from .paths import Inputs

FORMATS = {"png": (".png",), "jpg": (".jpg", ".jpeg"), "webp": (".webp",), "tiff": (".tiff", ".tif")}
"""The formats of --format and their suffixes, the first for names that have another."""
COMPARE_SUFFIX = ".compare.png"
_OTHER_NAMES = {".jfif": ".jpg", ".jpe": ".jpg", ".mpo": ".jpg", ".apng": ".png"}
"""Other names of files that can be written."""


@dataclass(frozen=True)
class ImagePair:
    """One picture to read and the file to write."""

    source: Path
    target: Path
    compare: Path | None = None
    """Where a strip with both goes, where one is asked for."""
    note: str = ""
    """Why the result has another format than its name promised."""


def pair_outputs(
    inputs: Inputs,
    headers: Mapping[Path, Header],
    file_format: str | None = None,
    compare: bool = False,
    others: tuple[Path, ...] = (),
) -> tuple[ImagePair, ...]:
    """Pair the pictures with their results; nothing is read or created.

    In a folder a picture keeps its name where that can be written, else it gets the suffix of `output_suffix`. Two
    pictures never get the same name. headers: of the pictures that could be read; others: files that are read too.
    Raises AlloSR2Error when a result would replace something that is read, and when an output file has not the suffix
    of file_format.
    """
    if not inputs.into_folder:
        target = inputs.target
        if file_format is not None and target.suffix.lower() not in FORMATS[file_format]:
            raise AlloSR2Error(
                f"{target}: expected a name ending in {FORMATS[file_format][0]} for the format asked for"
            )
        targets, notes = (target,), ("",)
    else:
        suffixes = [output_suffix(path, headers.get(path), file_format) for path in inputs.pictures]
        targets = _into_folder(inputs, [suffix for suffix, _ in suffixes])
        notes = tuple(note for _, note in suffixes)
    compares = _compare_names(targets) if compare else (None,) * len(targets)
    pairs = tuple(ImagePair(*parts) for parts in zip(inputs.pictures, targets, compares, notes, strict=True))
    _refuse_overwriting_inputs(pairs, others)
    return pairs


def output_suffix(source: Path, header: Header | None, file_format: str | None = None) -> tuple[str, str]:
    """The suffix of a result in a folder, and a note where the name promised another format.

    It is kept where it can be written; other names of JPEG and PNG become .jpg and .png, other animations .webp,
    everything else .png.
    A transparent picture under the name of a JPEG becomes a .png. With file_format all become that.
    """
    suffix = source.suffix.lower()
    if file_format is not None:
        return source.suffix if suffix in FORMATS[file_format] else FORMATS[file_format][0], ""
    animated = header is not None and header.animated and header.frames > 1
    other = ".webp" if animated else ".png"
    if _OTHER_NAMES.get(suffix, suffix) in FORMATS["jpg"] and header is not None and header.transparent:
        return other, f"transparent, which JPEG cannot hold: written as {other}"
    if suffix in WRITABLE_SUFFIXES:
        return source.suffix, ""
    return _OTHER_NAMES.get(suffix, other), ""


def _into_folder(inputs: Inputs, suffixes: list[str]) -> tuple[Path, ...]:
    """Every picture under its own name; a.bmp and a.png would both become a.png, so the first becomes a.bmp.png."""
    names = [path.relative_to(inputs.root) for path in inputs.pictures]
    # Pictures that keep their name come first: their outputs must not depend on what else is there.
    order = sorted(range(len(names)), key=lambda number: names[number].suffix != suffixes[number])
    # A folder below IN becomes one below OUT, and no result can have its name: a.bmp beside the folder a.png.
    taken = {_key(folder) for name in names for folder in name.parents}
    chosen = dict[int, Path]()
    for number in order:
        chosen[number] = _free(names[number].parent, _names(names[number], suffixes[number]), taken)
    return tuple(inputs.target / chosen[number] for number in range(len(names)))


def _names(path: Path, suffix: str) -> Iterator[str]:
    yield f"{path.stem}{suffix}"
    yield f"{path.name}{suffix}"
    number = 2
    while True:
        yield f"{path.name}-{number}{suffix}"
        number += 1


def _compare_names(targets: tuple[Path, ...]) -> tuple[Path, ...]:
    """a.compare.png for a.jpg; a.jpg.compare.png where two results differ in their suffix only."""
    taken = {_key(path) for path in targets}
    stems = Counter(_key(path.with_suffix("")) for path in targets)
    names = []
    for path in targets:
        candidates = _names(Path(path.name), COMPARE_SUFFIX)
        if stems[_key(path.with_suffix(""))] > 1:
            next(candidates)
        names.append(_free(path.parent, candidates, taken))
    return tuple(names)


def _free(folder: Path, names: Iterator[str], taken: set[str]) -> Path:
    """The first name that no other has, also where capitals are not told apart; it is taken from now on."""
    path = next(folder / name for name in names if _key(folder / name) not in taken)
    taken.add(_key(path))
    return path


def _key(path: Path) -> str:
    return str(path).casefold()


def _refuse_overwriting_inputs(pairs: tuple[ImagePair, ...], others: tuple[Path, ...]) -> None:
    inputs = (*(pair.source for pair in pairs), *others)
    sources = {os.path.realpath(path) for path in inputs}
    files = {_identity(path) for path in inputs} - {None}
    for pair in pairs:
        for output in (pair.target, pair.compare):
            # By identity too: a hard link, or another spelling. A link is what it points to.
            if output is not None and (os.path.realpath(output) in sources or _identity(output) in files):
                raise AlloSR2Error(f"{output}: expected an output that is not an input, this would replace it")


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file that exists."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
