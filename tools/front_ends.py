"""ComfyUI's web page, in two versions: the installed one, which ComfyUI 0.3.75 asks for, and one with Vue nodes."""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path

from package_archive import FetchError, Package, made_once

REPOSITORY = Path(__file__).resolve().parent.parent
NEWER = Package(
    "pypi",
    "comfyui-frontend-package",
    "1.49.6",
    "69cef7e67f22854852d1d7be68ff82f27bd4ff4b33de9c643d7eb1339769c421",
)
MODULE = "comfyui_frontend_package"


def installed() -> Path:
    """The static files of the installed comfyui-frontend-package; FetchError when it is not installed."""
    spec = find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise FetchError("comfyui-frontend-package is not installed: pip install -r tools/requirements-comfyui.txt")
    return Path(spec.submodule_search_locations[0]) / "static"


def newer() -> Path:
    """The static files of a newer one, fetched into the ignored cache the first time."""
    folder = REPOSITORY / ".cache" / "comfyui" / f"front-end-{NEWER.version}"
    return made_once(folder, NEWER, _unpack) / MODULE / "static"


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target, [name for name in archive.namelist() if name.startswith(f"{MODULE}/static/")])
