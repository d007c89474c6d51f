"""TiledDecode: latents to the finished picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.finish import settle
from ..allosr2_core.image.color import check_method
from ..allosr2_core.layout import Layout
from .comfy_host.vae import decoder
from .latent import KEY, target_of
from .sockets import choice_input, number_input, vae_input

if TYPE_CHECKING:
    from .comfy_host import VAE

MODES = ("exact", "blend")


class TiledDecode(io.ComfyNode):
    """Decode in tiles, crop, match colours once over the whole picture, put the alpha channel back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TiledDecode",
            display_name="Tiled Decode (AlloSR2)",
            category="AlloSR2",
            description="Decodes in tiles without seams and without a change of colour, then brings the picture to its "
            "exact size. Latents of other nodes are simply decoded.",
            inputs=[
                vae_input(),
                io.Latent.Input("latent", tooltip="The LATENT of AlloSR2 One-Step Upscale, or any other."),
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
                choice_input("color"),
            ],
            outputs=[io.Image.Output("IMAGE", tooltip="The finished picture; RGBA if the input had an alpha channel.")],
        )

    @classmethod
    def execute(cls, vae: VAE, latent: dict[str, Any], tile: int, mode: str, color: str) -> io.NodeOutput:
        if mode not in MODES:
            raise AlloSR2Error(f"expected mode to be one of {MODES}; got {mode!r}")
        check_method(color)
        samples, down = latent["samples"].float(), int(vae.spacial_compression_decode())
        if samples.ndim != 4:
            raise AlloSR2Error(f"expected latents of pictures (B, C, h, w); got shape {tuple(samples.shape)}")
        target = target_of(latent, down) if KEY in latent else None
        height, width = (side * down for side in samples.shape[-2:])
        layout = Layout.plain(height, width) if target is None else target.layout
        pictures = torch.empty(samples.shape[0], height, width, 3) if target is None else target.empty(samples.shape[0])
        decode = decoder(vae, samples, layout, tile=tile, exact=mode == "exact")
        for number, (z, picture) in enumerate(zip(samples.split(1), pictures, strict=True)):
            decode(z, picture)
            if target is not None:
                settle(picture, target.item(number), color)
        return io.NodeOutput(pictures)
