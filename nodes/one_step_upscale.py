"""AlloSR2OneStepUpscale: one evaluation of the flow, from picture to latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io, ui

from ..allosr2_core.layout import count_ticks
from ..allosr2_core.pipeline import prepare
from ..allosr2_core.start_time import estimate_t
from .comfy_host.execution import Ticker, show_text
from .comfy_host.fit import check_fit
from .comfy_host.model import dtype_name, step
from .comfy_host.vae import encode, encode_ticks
from .conditioning import prompt_for
from .latent import latent
from .mask import refuse_alpha_as_mask
from .node import Node, schema
from .sockets import (
    allosr2_input,
    mask_input,
    number_input,
    size,
    size_inputs,
    switch_input,
    time_input,
    vae_input,
)
from .spec import head_ticks
from .summary import Clock, Work

if TYPE_CHECKING:
    from torch import Tensor

    from .comfy_host import VAE, ModelPatcher
    from .spec import Spec


class AlloSR2OneStepUpscale(Node):
    """image -> bicubic -> encode -> one step -> LATENT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "AlloSR2OneStepUpscale",
            display_name="AlloSR2 One-Step Upscale",
            description="Restores and enlarges photographs (super resolution) with a single evaluation of the model. "
            "Decode the result with Tiled Decode (AlloSR2), or with any VAE Decode.",
            inputs=[
                io.Model.Input("model", tooltip="The MODEL of the AlloSR2 Loader."),
                vae_input(),
                allosr2_input(),
                io.Image.Input("image", tooltip="Photographs of any size; an alpha channel is kept."),
                *size_inputs(),
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
                mask_input(" Tiled Decode applies it, VAE Decode does not."),
            ],
            outputs=[
                io.Latent.Output(
                    "LATENT",
                    tooltip="Restored latents, with what Tiled Decode needs: size, alpha channel, mask, the input, and "
                    "where the step started.",
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
        size_by: str,
        scale: float,
        long_edge: int,
        tile: int,
        overlap: int,
        shifted_grid: bool = False,
        t: float | None = None,
        conditioning: list[list[Any]] | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        clock, config = Clock(), allosr2.config
        prompt = prompt_for(allosr2, conditioning)
        check_fit(allosr2, vae, model)
        if mask is not None:
            refuse_alpha_as_mask(image, mask)
        whole = size(size_by, scale, long_edge)
        target = prepare(image.cpu(), config, **whole, mask=None if mask is None else mask.cpu())
        layout, pictures = target.layout, range(image.shape[0])
        method = config.t_method if t is None else "manual"
        _, steps, _ = count_ticks(layout, config, tile, overlap)
        each = encode_ticks(layout, config) + head_ticks(allosr2, layout, method) + steps
        tick = Ticker(len(pictures) * each)
        windows = (target.item(number).window() for number in pictures)
        z_lr = torch.cat([encode(vae, layout, window, config, tick) for window in windows])
        times = estimate_t(z_lr.cpu(), config, allosr2.snr_head, method, manual=t, tick=tick).t
        tiles = {"tile": tile, "overlap": overlap, "shifted": shifted_grid}
        z_hr = step(model, z_lr, times, config, prompt=prompt, **tiles, tick=tick)
        work = Work(tuple(times.tolist()), config.t_star, steps, dtype_name(model), clock.seconds)
        text = work.text(layout)
        show_text(text)
        raw = (model.model.process_latent_out(z) for z in (z_hr, z_lr))
        return io.NodeOutput(latent(*raw, target, work), ui=ui.PreviewText(text))
