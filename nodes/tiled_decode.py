"""TiledDecode: latents to the finished picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io, ui

from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.finish import settle
from ..allosr2_core.image.color import check_method
from ..allosr2_core.layout import Layout
from ..allosr2_core.options import check
from ..allosr2_core.pipeline import toward
from .comfy_host.execution import show_text, stop_if_cancelled
from .comfy_host.vae import decoder
from .latent import KEY, origin_of
from .node import Node, schema
from .sockets import choice_input, number_input, vae_input
from .summary import Clock

if TYPE_CHECKING:
    from .comfy_host import VAE

MODES = ("exact", "blend")


class TiledDecode(Node):
    """Decode in tiles, crop, match colours once over the whole picture, put the alpha channel back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "TiledDecode",
            words=("allosr2", "vae decode", "super resolution"),
            display_name="Tiled Decode (AlloSR2)",
            description="Decodes in tiles without seams and without a change of colour, then brings the picture to its "
            "exact size. Latents of other nodes are simply decoded.",
            inputs=[
                vae_input(),
                io.Latent.Input("latent", tooltip="The LATENT of AlloSR2 One-Step Upscale, or any other."),
                number_input("realism"),
                choice_input("color"),
                number_input(
                    "tile",
                    "Side of a tile in pixels. 0 = as the free memory allows. In mode 'exact' it changes the "
                    "memory needed, not the picture.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=MODES[0],
                    tooltip="exact: every tile is decoded with its real surroundings, the result is that of one pass "
                    "over the whole (VAEs that allow no such tiles make that one pass). blend: overlapping tiles are "
                    "blended (any VAE).",
                ),
            ],
            outputs=[io.Image.Output("IMAGE", tooltip="The finished picture; RGBA if the input had an alpha channel.")],
        )

    @classmethod
    def execute(
        cls, vae: VAE, latent: dict[str, Any], realism: float, color: str, tile: int, mode: str
    ) -> io.NodeOutput:
        if mode not in MODES:
            raise AlloSR2Error(f"expected mode to be one of {MODES}; got {mode!r}")
        check_method(color)
        check("realism", realism)
        check("tile", tile)
        samples, down, clock = latent["samples"].float(), int(vae.spacial_compression_decode()), Clock()
        if samples.ndim != 4:
            raise AlloSR2Error(f"expected latents of pictures (B, C, h, w); got shape {tuple(samples.shape)}")
        if KEY not in latent:
            height, width = (side * down for side in samples.shape[-2:])
            layout, pictures = Layout.plain(height, width), torch.empty(samples.shape[0], height, width, 3)
            decode = decoder(vae, samples, layout, tile=tile, exact=mode == "exact")
            for z, picture in zip(samples.split(1), pictures, strict=True):
                decode(z, picture, None)
            return io.NodeOutput(pictures)
        origin, numbers = origin_of(latent, down)
        target, layout = origin.target, origin.target.layout
        pictures = target.empty(len(numbers))
        decode = decoder(vae, samples, layout, tile=tile, exact=mode == "exact")
        for number, z, picture in zip(numbers, samples.split(1), pictures, strict=True):
            if realism != 1.0:
                z = z.clone()
                toward(origin.start[number : number + 1].to(z), z, realism)
            decode(z, picture, target.source[number : number + 1])
            settle(picture, target.item(number), color, stop_if_cancelled)
        text = origin.work.text(layout, clock.seconds)
        show_text(text)
        return io.NodeOutput(pictures, ui=ui.PreviewText(text))
