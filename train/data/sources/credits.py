"""Who made each photo and under which licence, as far as the packages say so.

A statement is looked for in this order: a metadata file beside the photo (`metadata.json` of a wallpaper, `.desktop` of
a puzzle), the package's machine-readable copyright file (the last `Files:` paragraph that matches, Debian copyright
format 1.0), the licence names that a plain copyright file points at, the licence in an npm package's own description.
Every credit says which of these it rests on, so a reader can tell a statement about one photo from a statement about
its whole package.
"""

import configparser
import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from train.data.sources.archives import IMAGE_SUFFIXES

UNKNOWN = "not stated"
_BESIDE = "metadata beside the photo"
_NPM_DESCRIPTION = "package/package.json"
_MAX_HOLDERS = (
    4  # a paragraph for a whole package may list dozens of holders, none of them known to be the photographer
)


@dataclass(frozen=True)
class Statement:
    """Author and licence names, and where they are written."""

    author: str
    license: str
    stated_in: str


@dataclass(frozen=True)
class FilesParagraph:
    """One `Files:` paragraph of a machine-readable copyright file."""

    patterns: tuple[str, ...]
    author: str
    license: str


def is_credit_file(path: str) -> bool:
    """True for the files of a package that `find_statement` reads."""
    name = PurePosixPath(path).name
    in_doc = path.startswith("usr/share/doc/") and name == "copyright"
    of_puzzle = name.endswith(".desktop") and "/applications/" not in path
    return in_doc or of_puzzle or path == _NPM_DESCRIPTION or name == "metadata.json"


def parse_copyright(text: str) -> list[FilesParagraph]:
    """The `Files:` paragraphs of a machine-readable copyright file, in order; [] when the file is plain prose."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, list[str]] = {}
        current = ""
        for line in block.splitlines():
            head = re.match(r"([A-Za-z][A-Za-z-]*):\s*(.*)", line)
            if head:
                current = head[1].lower()
                fields[current] = [head[2].strip()] if head[2].strip() else []
            elif line[:1] in (" ", "\t") and current:
                fields[current].append(line.strip())
        if "files" in fields and fields.get("license"):
            holders = [line for line in fields.get("copyright", []) if line]
            if len(holders) > _MAX_HOLDERS:
                holders = [*holders[:2], f"and {len(holders) - 2} others named in the package's copyright file"]
            patterns = tuple(" ".join(fields["files"]).split())
            paragraphs.append(FilesParagraph(patterns, "; ".join(holders) or UNKNOWN, fields["license"][0]))
    return paragraphs


def statement_for(paragraphs: Sequence[FilesParagraph], source_path: str) -> Statement | None:
    """What a machine-readable copyright file says of one file of the source package; the last match counts.

    A photo may have been converted when the package was built, so its name with another image suffix counts when
    nothing but the catch-all paragraph `*` names the file itself.
    """
    found: Statement | None = None
    for paragraph in paragraphs:
        if any(p != "*" and fnmatch.fnmatchcase(source_path, p) for p in paragraph.patterns):
            found = Statement(paragraph.author, paragraph.license, "copyright file, paragraph naming it")
    if found is not None:
        return found
    stem = _without_image_suffix(source_path)
    for paragraph in paragraphs:
        if any(_without_image_suffix(p) == stem for p in paragraph.patterns):
            found = Statement(paragraph.author, paragraph.license, "copyright file, same name with another suffix")
    if found is not None:
        return found
    for paragraph in paragraphs:
        if "*" in paragraph.patterns:
            found = Statement(paragraph.author, paragraph.license, "copyright file, paragraph for the whole package")
    return found


def find_statement(credit_files: Mapping[str, bytes], path: str, installed: str, source: str) -> Statement:
    """The best statement about the photo at `path` of a package.

    Args:
        credit_files: contents of the package's `is_credit_file` members by path.
        path: where the photo lies in the package; "container!inner" for one inside a container.
        installed: leading part of the path that the package's build put there.
        source: what stands in its place in the source package, whose paths the copyright file uses.
    """
    beside = _beside(credit_files, path)
    if beside is not None:
        return beside
    inner = path.split("!")[-1]
    source_path = source + inner.removeprefix(installed) if inner.startswith(installed) else inner
    texts = [data.decode("utf-8", "replace") for name, data in credit_files.items() if name.endswith("/copyright")]
    for text in texts:
        statement = statement_for(parse_copyright(text), source_path)
        if statement is not None:
            return statement
        names = sorted(set(re.findall(r"/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])", text)))
        if names:
            return Statement(UNKNOWN, " or ".join(names), "copyright file (prose), licences of the whole package")
    described = _npm_license(credit_files.get(_NPM_DESCRIPTION, b""))
    if described:
        return Statement(UNKNOWN, described, "package.json, licence of the whole package")
    return Statement(UNKNOWN, UNKNOWN, "nothing found in the package")


def _beside(credit_files: Mapping[str, bytes], path: str) -> Statement | None:
    """What a metadata file of one photo says: the `.desktop` of its stem, a `metadata.json` up the tree."""
    photo = PurePosixPath(path)
    puzzle = credit_files.get(str(photo.with_suffix(".desktop")))
    if puzzle is not None:
        return _puzzle_statement(puzzle)
    for folder in photo.parents:
        metadata = credit_files.get(str(folder / "metadata.json"))
        if metadata is not None:
            return _wallpaper_statement(metadata)
    return None


def _puzzle_statement(data: bytes) -> Statement | None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(data.decode("utf-8", "replace"))
    except configparser.Error:
        return None
    license_name = parser.get("Desktop Entry", "X-KDE-PluginInfo-License", fallback="")
    author = parser.get("Desktop Entry", "X-KDE-PluginInfo-Author", fallback="")
    return Statement(author or UNKNOWN, license_name, _BESIDE) if license_name else None


def _wallpaper_statement(data: bytes) -> Statement | None:
    try:
        plugin = json.loads(data)["KPlugin"]
        author = ", ".join(entry["Name"] for entry in plugin.get("Authors", []))
        license_name = plugin.get("License", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Statement(author or UNKNOWN, license_name, _BESIDE) if license_name else None


def _npm_license(description: bytes) -> str:
    """The licence that a package.json names, as an SPDX expression or in npm's older forms; "" when it names none."""
    try:
        told = json.loads(description)
    except ValueError:
        return ""
    found = told.get("license") or told.get("licenses") or "" if isinstance(told, dict) else ""
    entries = found if isinstance(found, list) else [found]
    names = [entry.get("type", "") if isinstance(entry, dict) else str(entry) for entry in entries]
    return " or ".join(name for name in names if name)


def _without_image_suffix(path: str) -> str:
    pure = PurePosixPath(path)
    return str(pure.with_suffix("")) if pure.suffix.lower() in IMAGE_SUFFIXES else path
