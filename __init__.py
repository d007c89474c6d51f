"""AlloSR2 for ComfyUI: photographs restored and enlarged in one step of a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"  # the nodes' help pages


async def comfy_entrypoint() -> ComfyExtension:
    """Called by ComfyUI when it loads the pack."""
    from .nodes import AlloSR2Extension, register_folder

    register_folder()
    return AlloSR2Extension()
