"""The commands that fetch archives from the ordinary package indexes: apt, pip and npm."""

import shutil
import sys
from collections.abc import Sequence

from allosr2_core.errors import AlloSR2Error


def apt_download(names: Sequence[str]) -> list[str]:
    """The command that puts the .deb of each package into the current folder; AlloSR2Error without apt."""
    return [_program("apt-get", "packages of Debian or Ubuntu", names), "--quiet=2", "download", *names]


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
