"""What each way of installing costs, in MB on the wire and on disk: the figures of the README.

python tools/install_size.py            # of the last commit of this checkout
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MEGABYTE = 1e6


def _run(*command: str | Path, cwd: Path, home: Path) -> None:
    environment = os.environ | {"HOME": str(home), "DO_NOT_TRACK": "1"}
    subprocess.run([str(part) for part in command], cwd=cwd, env=environment, check=True, capture_output=True)


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MEGABYTE


def measure(work: Path) -> dict[str, tuple[float, float]]:
    """Way -> (MB that are fetched, MB on disk)."""
    clone = ["git", "clone", "--quiet", "--no-local", "--single-branch"]
    sizes = {}
    for way, options in (("shallow clone", ["--depth", "1"]), ("full clone", [])):
        folder = work / way.replace(" ", "-")
        _run(*clone, *options, REPOSITORY.as_uri(), folder, cwd=work, home=work)
        sizes[way] = (_size(folder / ".git" / "objects"), _size(folder))
    checkout = work / "shallow-clone"
    _run(Path(sys.executable).with_name("comfy"), "--skip-prompt", "node", "pack", cwd=checkout, home=work)
    with zipfile.ZipFile(checkout / "node.zip") as packed:
        files = sum(entry.file_size for entry in packed.infolist()) / MEGABYTE
    return {"archive": ((checkout / "node.zip").stat().st_size / MEGABYTE, files), **sizes}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        for way, (fetched, on_disk) in measure(Path(name)).items():
            sys.stdout.write(f"{way}: {fetched:.0f} MB fetched, {on_disk:.0f} MB on disk\n")


if __name__ == "__main__":
    main()
