"""The AlloSR2 nodes: one per file, thin. comfy_host calls ComfyUI, allosr2_core does the work."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .comfy_host.files import register_folder
from .loader import AlloSR2Loader
from .one_step_upscale import AlloSR2OneStepUpscale
from .pick import AlloSR2PickFromList
from .snr_timestep import SNRTimestepEstimate
from .tiled_decode import TiledDecode
from .upscale import AlloSR2Upscale

__all__ = ["AlloSR2Extension", "register_folder"]


class AlloSR2Extension(ComfyExtension):
    """The list of this pack's nodes, for ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            AlloSR2Upscale,
            AlloSR2Loader,
            SNRTimestepEstimate,
            AlloSR2OneStepUpscale,
            TiledDecode,
            AlloSR2PickFromList,
        ]
