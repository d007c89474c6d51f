"""ComfyUI's modules in this process. Not for the tests: it changes sys.path and the host's settings for good."""

from __future__ import annotations

import sys

import torch

from allosr2_core.errors import AlloSR2Error
from tools.comfyui import FetchError, fetch
from tools.launch_comfyui import declare_torchvision_schemas, has_operators


def import_host() -> None:
    """Make `import comfy...` work. AlloSR2Error when the host cannot be fetched."""
    try:
        root = str(fetch())
    except FetchError as error:
        raise AlloSR2Error(str(error)) from error
    if root not in sys.path:
        sys.path.append(root)  # at the end: its `nodes`, `tests` and `utils` must not hide other modules
    schemas = None if has_operators() else declare_torchvision_schemas()  # kept until torchvision is imported
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()  # the host does not find that out itself
    import comfy.sd  # noqa: F401

    del schemas
