"""ComfyUI's modules in this process. Not for the tests: it changes sys.path and the host's settings for good."""

from __future__ import annotations

import sys

import torch

from allosr2_core.errors import AlloSR2Error
from tools.comfyui import FetchError, fetch
from tools.launch_comfyui import host_modules


def import_host() -> None:
    """Make `import comfy...` work. AlloSR2Error when the host cannot be fetched."""
    try:
        root = str(fetch())
    except FetchError as error:
        raise AlloSR2Error(str(error)) from error
    if root not in sys.path:
        # the host does not find out itself that there is no GPU
        host_modules(root, cpu=not torch.cuda.is_available(), first=False)
