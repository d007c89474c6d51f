"""A Chromium for the browser tests.

Taken from, in this order: the program named in $CHROMIUM; the npm package @sparticuz/chromium, which carries a
headless Chromium for x86-64 Linux and the libraries it needs (no root needed); a Chromium on the PATH; Debian's
package, where this process is root. The npm package is pinned, verified and unpacked into the ignored cache.

    python tools/chromium.py            # prints the program
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import brotli
from package_archive import FetchError, Package, made_once

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = REPOSITORY / ".cache" / "chromium"
PACKAGE = Package(
    "npm", "@sparticuz/chromium", "153.0.0", "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0"
)
NAMES = ("chromium", "chromium-headless-shell", "google-chrome")
DEBIAN = "chromium-headless-shell"
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{unpacked}</dir><dir>/usr/share/fonts</dir><cachedir>{cache}</cachedir></fontconfig>
"""


@dataclass(frozen=True)
class Chromium:
    """A program and the environment variables it needs besides those of this process."""

    program: Path
    environment: dict[str, str] = field(default_factory=dict)


def find() -> Chromium:
    """A Chromium, fetched where none is there yet; FetchError says what was tried."""
    if named := os.environ.get("CHROMIUM"):
        if shutil.which(named) is None:
            raise FetchError(f"$CHROMIUM names no program: {named}")
        return Chromium(Path(named))
    tried = []
    for way in (_packaged, _on_path, _debian):
        try:
            return way()
        except FetchError as error:
            tried.append(str(error))
    raise FetchError(f"no Chromium: {'; '.join(tried)}. Install one, or name one in $CHROMIUM")


def _packaged() -> Chromium:
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        raise FetchError(f"{PACKAGE} is for Linux x86_64, this is {machine}")
    folder = made_once(CACHE / PACKAGE.version, PACKAGE, _unpack)
    fonts = folder / "fonts.conf"
    if not fonts.exists():  # not part of what is unpacked: it names the folder's final place
        fonts.write_text(FONTS.format(unpacked=folder / "fonts", cache=folder / "fonts-cache"))
    libraries = ":".join(filter(None, [str(folder / "lib"), os.environ.get("LD_LIBRARY_PATH")]))
    return Chromium(folder / "chromium", {"LD_LIBRARY_PATH": libraries, "FONTCONFIG_FILE": str(fonts)})


def _unpack(archive: Path, target: Path) -> None:
    """The program, the libraries a bare system lacks (lib/) and one font family (fonts/)."""
    work = archive.parent
    with tarfile.open(archive) as package:
        package.extractall(work, filter="data")
    compressed = work / "package" / "bin"
    with (target / "chromium").open("wb") as program, (compressed / "chromium.br").open("rb") as source:
        inflate = brotli.Decompressor()
        for block in iter(partial(source.read, 1 << 20), b""):
            program.write(inflate.process(block))
    (target / "chromium").chmod(0o755)
    for name in ("al2023.tar.br", "fonts.tar.br"):
        tar = work / name.removesuffix(".br")
        tar.write_bytes(brotli.decompress((compressed / name).read_bytes()))
        with tarfile.open(tar) as files:
            files.extractall(target, filter="data")
    (target / "fonts.conf").unlink()  # it names folders of the package's own


def _on_path() -> Chromium:
    for name in NAMES:
        if program := shutil.which(name):
            return Chromium(Path(program))
    raise FetchError(f"none of {', '.join(NAMES)} is on the PATH")


def _debian() -> Chromium:
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise FetchError("Debian's package needs apt-get and root")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", DEBIAN, "fonts-dejavu-core"]):
        done = subprocess.run([apt, "--quiet=2", *step], capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise FetchError(f"apt-get {' '.join(step)}: {done.stderr.strip()[-500:]}")
    return _on_path()


def main() -> int:
    try:
        sys.stdout.write(f"{find().program}\n")
    except FetchError as error:
        sys.stderr.write(f"chromium: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
