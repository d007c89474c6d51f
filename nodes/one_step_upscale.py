"""AlloSR2OneStepUpscale: one evaluation of the flow, from picture to latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..allosr2_core.layout import count_ticks
from ..allosr2_core.pipeline import prepare
from ..allosr2_core.start_time import estimate_t
from . import host
from .conditioning import prompt_for
from .latent import latent
from .mask import refuse_alpha_as_mask
from .sockets import allosr2_input, scale_input, tile_input, vae_input

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE
    from torch import Tensor

    from .spec import Spec


class AlloSR2OneStepUpscale(io.ComfyNode):
    """image -> bicubic -> encode -> one step -> LATENT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlloSR2OneStepUpscale",
            display_name="AlloSR2 One-Step Upscale",
            category="AlloSR2",
            description="Restores and enlarges photographs with a single evaluation of the model. "
            "Decode the result with Tiled Decode (AlloSR2), or with any VAE Decode.",
            inputs=[
                io.Model.Input("model", tooltip="The MODEL of the AlloSR2 Loader."),
                vae_input(),
                allosr2_input(),
                io.Image.Input("image", tooltip="Photographs of any size; an alpha channel is kept."),
                scale_input(
                    "How many times larger each side becomes, rounded to whole pixels. The picture is restored at the "
                    "factor the checkpoint was trained for, 4, and then brought to this one."
                ),
                io.Int.Input(
                    "target_long_edge",
                    default=0,
                    min=0,
                    max=16384,
                    step=1,
                    tooltip="Length of the result's longer side in pixels, instead of scale. 0 = use scale.",
                ),
                io.Float.Input(
                    "realism",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How far to go from the enlarged input (0) to the model's picture (1, as trained). "
                    "Above 1 exaggerates.",
                ),
                tile_input(
                    "Side of the pieces the model sees, in pixels of the 4x picture. 0 = what the checkpoint "
                    "recommends, and half as much when memory runs out. Smaller saves memory; larger lets it see more "
                    "of the picture."
                ),
                io.Int.Input(
                    "overlap",
                    default=64,
                    min=0,
                    max=1024,
                    step=8,
                    tooltip="How many pixels of the 4x picture neighbouring pieces share; they are blended there. 64 "
                    "hides seams.",
                ),
                io.Boolean.Input(
                    "shifted_grid",
                    default=False,
                    optional=True,
                    tooltip="Takes the step a second time on a grid shifted by half a patch and averages both: twice "
                    "the time, for when a fine regular pattern shows.",
                ),
                io.Float.Input(
                    "t",
                    optional=True,
                    force_input=True,
                    tooltip="Time t* to start from, 0..1, usually from SNR Timestep Estimate. Unconnected: each "
                    "picture gets its own by the checkpoint's recommended method. Lower stays closer to the input.",
                ),
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="For adapters on text-to-image bases: another prompt than the empty one they bring. The "
                    "embedded checkpoint takes none.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where to restore: white takes the restored picture, black keeps the plain enlargement, "
                    "grey mixes. Of the image's size; its edge is softened over one input pixel. Tiled Decode "
                    "applies it, VAE Decode does not.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "LATENT",
                    tooltip="Restored latents, with what Tiled Decode needs: size, alpha channel, mask and the input.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        vae: VAE,
        allosr2: Spec,
        image: Tensor,
        scale: float,
        target_long_edge: int,
        realism: float,
        tile: int,
        overlap: int,
        shifted_grid: bool = False,
        t: float | None = None,
        conditioning: list[list[Any]] | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        prompt = prompt_for(allosr2, conditioning)
        host.check_fit(allosr2, vae, model)
        config = allosr2.config
        size = {"scale": None if target_long_edge else scale, "long_edge": target_long_edge or None}
        if mask is not None:
            refuse_alpha_as_mask(image, mask)
        target = prepare(image.cpu(), config, **size, mask=None if mask is None else mask.cpu())
        layout, pictures = target.layout, range(image.shape[0])
        _, steps, _ = count_ticks(layout, config, tile, overlap)
        tick = host.Ticker(len(pictures) * (host.encode_ticks(layout, config) + steps))
        windows = (target.item(number).window() for number in pictures)
        z_lr = torch.cat([host.encode(vae, layout, window, config, tick) for window in windows])
        method = config.t_method if t is None else "manual"
        times = estimate_t(z_lr.cpu(), config, allosr2.snr_head, method, manual=t).t
        tiles = {"tile": tile, "overlap": overlap, "shifted": shifted_grid}
        z_hr = host.step(model, z_lr, times, config, prompt=prompt, realism=realism, **tiles, tick=tick)
        return io.NodeOutput(latent(model.model.process_latent_out(z_hr), target))
