"""The commands that fetch archives from the ordinary package indexes: apt, pip and npm."""

import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from allosr2_core.errors import AlloSR2Error

APT = Path("/etc/apt")


def apt_download(names: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """The command that puts the .deb of each package into the current folder; AlloSR2Error without apt."""
    return [_program("apt-get", "packages of Debian or Ubuntu", names), "--quiet=2", *options, "download", *names]


def apt_update(options: Sequence[str]) -> list[str]:
    """The command that reads what there is of another release."""
    return [_program("apt-get", "packages of another release", options), "--quiet=2", *options, "update"]


def apt_options(release: str, folder: Path, apt: Path = APT) -> list[str]:
    """Options with which apt-get sees a release of Debian, e.g. "trixie", from where it has this machine's own.

    Its lists go into `folder`; the system's are left alone. None for the release that runs here. AlloSR2Error where
    this is no Debian, or its sources name no archive of it.
    """
    system = platform.freedesktop_os_release()
    own = system.get("VERSION_CODENAME", "")
    if own == release:
        return []
    found = next(_sources(apt, own, release), None) if system.get("ID") == "debian" else None
    if found is None:
        raise AlloSR2Error(f"expected Debian with its archive in {apt} to fetch packages of {release}; found none")
    suffix, text = found
    sources, lists = folder / f"{release}{suffix}", folder / "lists"
    sources.write_text(text, encoding="utf-8")
    (lists / "partial").mkdir(parents=True)
    places = {"Dir::Etc::SourceList": sources, "Dir::Etc::SourceParts": "/dev/null", "Dir::State::Lists": lists}
    return [part for key, value in places.items() for part in ("-o", f"{key}={value}")]


def _sources(apt: Path, own: str, release: str) -> Iterator[tuple[str, str]]:
    """(suffix, text) of what the machine's sources of its `own` release are for another one."""
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", text):
                suites = re.search(r"^Suites:(.*)$", stanza, re.MULTILINE)
                if suites is not None and own in suites[1].split():
                    named = re.sub(r"^Suites:.*$", f"Suites: {release}", stanza, flags=re.MULTILINE)
                    yield ".sources", re.sub(r"^Components:.*$", "Components: main", named, flags=re.MULTILINE) + "\n"
        else:
            for line in re.findall(rf"^(deb\s+(?:\[[^]]*\]\s+)?\S+)\s+{re.escape(own)}\s", text, re.MULTILINE):
                yield ".list", f"{line} {release} main\n"


def pip_download(*options: str) -> list[str]:
    """The command that fetches archives without what they depend on; `options`: which, of what kind, and whereto."""
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]


def npm_pack(names: Sequence[str]) -> list[str]:
    """The command that puts the .tgz of each package ("name@version") there; AlloSR2Error without npm."""
    return [_program("npm", "packages of npm, which Debian has as `npm`", names), "pack", "--silent", *names]


def _program(name: str, what: str, wanted: Sequence[str]) -> str:
    program = shutil.which(name)
    if program is None:
        raise AlloSR2Error(f"{name} not found: {', '.join(wanted)} are {what}")
    return program
