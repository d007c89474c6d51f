"""What IN and OUT of `upscale` mean: one picture or a folder of them, one file or a folder for the results."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import AlloSR2Error
from ..image.read import READABLE_SUFFIXES
from ..image.write import WRITABLE_SUFFIXES

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_FILE_TYPE = re.compile(r"\.(?=.*[A-Za-z])[A-Za-z0-9]{1,5}")
"""A suffix that reads like a type of file: .bmp and .jp2, not the .01 of 2024.05.01."""


@dataclass(frozen=True)
class Inputs:
    """The pictures to read and where their results go; only names were looked at."""

    pictures: tuple[Path, ...]
    """In the order of their names."""
    root: Path
    """The folder that the results keep the tree of."""
    target: Path
    """A file for the one picture, or the folder for all results."""
    into_folder: bool
    """Whether `target` is a folder."""
    is_folder: bool
    """Whether a folder was given, rather than one picture."""
    others: tuple[Path, ...] = ()
    """Files of the folder whose suffix is not a picture's."""
    links: tuple[Path, ...] = ()
    """Links to folders, which are not followed, where folders are."""


def find_inputs(source: str, target: str, recursive: bool = False) -> Inputs:
    """Look up IN and OUT as they were typed; nothing is opened or created.

    A folder's results go into a folder, as does one picture where OUT is a folder, ends in a slash or has no suffix
    of a file. recursive: with the folders below IN, but for hidden ones, links, and OUT.
    Raises AlloSR2Error when IN is missing or has no pictures, when OUT cannot be what it has to be, and for addresses.
    """
    for text, name in ((source, "IN"), (target, "OUT")):
        check_local(text, name)
    wanted, goal = Path(source), Path(target)
    if os.path.isdir(wanted):  # not Path.is_dir: that raises for a name too long
        into_folder = os.path.isdir(goal) or _ends_in_slash(target) or goal.suffix.lower() not in _PICTURE_SUFFIXES
        if not into_folder or (os.path.exists(goal) and not os.path.isdir(goal)):
            raise AlloSR2Error(
                f"{target}: expected a folder for the results of a folder, got {_what_is(goal)} "
                "(end the name of a new folder in a slash)"
            )
        entries, links = _entries(wanted, goal, recursive)
        pictures = tuple(path for path in entries if path.suffix.lower() in READABLE_SUFFIXES)
        if not pictures:
            below = "" if recursive else " (--recursive looks into the folders below)"
            raise AlloSR2Error(
                f"{source}: expected a folder with pictures ({', '.join(READABLE_SUFFIXES)}), found none{below}"
            )
        others = tuple(path for path in entries if path.suffix.lower() not in READABLE_SUFFIXES)
        return Inputs(pictures, wanted, goal, into_folder=True, is_folder=True, others=others, links=tuple(links))
    if not os.path.exists(wanted):
        raise AlloSR2Error(f"{source}: expected a picture or a folder, found nothing")
    if recursive:
        raise AlloSR2Error(f"{source}: expected a folder for --recursive, got {_what_is(wanted)}")
    return Inputs((wanted,), wanted.parent, goal, into_folder=_means_folder(target), is_folder=False)


def check_local(text: str, name: str) -> None:
    """AlloSR2Error for an empty path and for an address (http://, smb://), with what to do."""
    if not text:
        raise AlloSR2Error(f"expected a path for {name}, got an empty one")
    if match := _ADDRESS.match(text):
        scheme = match[1].lower()
        advice = {
            "file": "give the path without file://",
            "http": "download it and give the file's path" if name != "OUT" else "write to a file and upload that",
        }
        advice["https"] = advice["http"]
        how = advice.get(scheme, "mount the share and give the path it has here")
        raise AlloSR2Error(f"{text}: expected {name} to be a path on this computer, got an address: {how}")


def _means_folder(target: str) -> bool:
    """Whether the OUT of one picture is a folder; AlloSR2Error where it is neither that nor a file to write."""
    goal = Path(target)
    if os.path.isdir(goal):
        return True
    if _ends_in_slash(target):
        if os.path.exists(goal):
            raise AlloSR2Error(f"{target}: expected a folder by the slash, found {_what_is(goal)}")
        return True
    if goal.suffix.lower() in WRITABLE_SUFFIXES:
        return False
    if os.path.exists(goal) or _FILE_TYPE.fullmatch(goal.suffix):
        raise AlloSR2Error(
            f"{target}: expected a folder, or a file ending in {', '.join(WRITABLE_SUFFIXES)}; got "
            f"{goal.suffix or 'no suffix'!r} (end the name of a new folder in a slash)"
        )
    return True


def _entries(folder: Path, target: Path, recursive: bool) -> tuple[list[Path], list[Path]]:
    """Everything in a folder but hidden things and folders, in order; and the links to folders that were not walked."""
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise AlloSR2Error(f"{folder}: could not be listed: {error}") from error
    entries, links = [path for path in found if not os.path.isdir(path)], list[Path]()
    for path in found if recursive else ():
        if not os.path.isdir(path) or _same(path, target):
            continue
        if path.is_symlink():
            links.append(path)
            continue
        below = _entries(path, target, recursive)
        entries += below[0]
        links += below[1]
    return entries, links


def _same(path: Path, target: Path) -> bool:
    return os.path.exists(target) and os.path.samefile(path, target)


def _ends_in_slash(text: str) -> bool:
    return text.endswith(tuple(separator for separator in (os.sep, os.altsep) if separator))


def _what_is(path: Path) -> str:
    return "a folder" if os.path.isdir(path) else "a file" if os.path.exists(path) else f"a file's name ({path.suffix})"


_PICTURE_SUFFIXES = (*READABLE_SUFFIXES, *WRITABLE_SUFFIXES)
