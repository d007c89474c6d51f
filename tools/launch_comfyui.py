"""Run ComfyUI's main.py in this process, for machines where torchvision's compiled operators do not load.

torchvision registers shape functions for `torchvision::nms` and `torchvision::qnms` while it is imported; beside a
torch build its own library was not made for, those operators do not exist and the import fails. Declaring the schemas
first lets the import (and the transforms ComfyUI uses) work. The operators themselves stay absent.

    python tools/launch_comfyui.py COMFYUI_ROOT [ComfyUI options]
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import runpy
import sys
from pathlib import Path

import torch

SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_torchvision_schemas() -> torch.library.Library:
    """Declare the missing operator schemas, before torchvision is imported; the returned library must be kept alive."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, signature in SCHEMAS.items():
        library.define(f"{name}{signature}")
    return library


def has_operators() -> bool:
    """True when torchvision's own operator library loads beside this torch (without importing torchvision)."""
    spec = importlib.util.find_spec("torchvision")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for library in (file for folder in folders for file in Path(folder).glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))
        except OSError as error:  # built against another torch, or against CUDA libraries that are not here
            logging.getLogger(__name__).info("torchvision operators stay absent: %s", error)
    return hasattr(torch.ops.torchvision, "nms")


def host_modules(root: Path | str, *, cpu: bool, first: bool = True) -> None:
    """Make `import comfy` and `import nodes` work in this process: it is ComfyUI's from then on.

    cpu: run on the CPU even beside a GPU. first: ComfyUI's `nodes`, `tests` and `utils` hide other modules of these
    names; otherwise those hide ComfyUI's.
    """
    sys.path.insert(0 if first else len(sys.path), str(root))
    library = None if has_operators() else declare_torchvision_schemas()
    importlib.import_module("torchvision")
    del library
    importlib.import_module("comfy.cli_args").args.cpu = cpu


def main() -> None:
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "main.py").is_file():
        sys.exit("usage: python tools/launch_comfyui.py COMFYUI_ROOT [ComfyUI options]")
    root = Path(sys.argv[1]).resolve()
    library = None if has_operators() else declare_torchvision_schemas()
    sys.argv = [str(root / "main.py"), *sys.argv[2:]]
    sys.path.insert(0, str(root))
    runpy.run_path(str(root / "main.py"), run_name="__main__")
    del library


if __name__ == "__main__":
    main()
