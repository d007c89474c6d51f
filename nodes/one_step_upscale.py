"""AlloSR2OneStepUpscale: one evaluation of the flow, from picture to latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..allosr2_core.layout import count_ticks
from ..allosr2_core.pipeline import prepare
from ..allosr2_core.start_time import estimate_t
from .comfy_host.execution import Ticker
from .comfy_host.fit import check_fit
from .comfy_host.model import step
from .comfy_host.vae import encode, encode_ticks
from .conditioning import prompt_for
from .latent import latent
from .mask import refuse_alpha_as_mask
from .sockets import allosr2_input, number_input, switch_input, time_input, vae_input

if TYPE_CHECKING:
    from torch import Tensor

    from .comfy_host import VAE, ModelPatcher
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
                number_input("scale"),
                number_input("long_edge"),
                number_input("realism"),
                number_input("tile"),
                number_input("overlap"),
                switch_input("shifted"),
                time_input(),
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
        check_fit(allosr2, vae, model)
        config = allosr2.config
        size = {"scale": None if target_long_edge else scale, "long_edge": target_long_edge or None}
        if mask is not None:
            refuse_alpha_as_mask(image, mask)
        target = prepare(image.cpu(), config, **size, mask=None if mask is None else mask.cpu())
        layout, pictures = target.layout, range(image.shape[0])
        _, steps, _ = count_ticks(layout, config, tile, overlap)
        tick = Ticker(len(pictures) * (encode_ticks(layout, config) + steps))
        windows = (target.item(number).window() for number in pictures)
        z_lr = torch.cat([encode(vae, layout, window, config, tick) for window in windows])
        method = config.t_method if t is None else "manual"
        times = estimate_t(z_lr.cpu(), config, allosr2.snr_head, method, manual=t).t
        tiles = {"tile": tile, "overlap": overlap, "shifted": shifted_grid}
        z_hr = step(model, z_lr, times, config, prompt=prompt, realism=realism, **tiles, tick=tick)
        return io.NodeOutput(latent(model.model.process_latent_out(z_hr), target))
