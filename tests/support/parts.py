"""The parts of the pipeline on whole pictures, for tests."""

from typing import Any

import torch
from torch import Tensor

from allosr2_core.checkpoint.config import AlloSR2Config
from allosr2_core.finish import Target, settle
from allosr2_core.layout import Layout, decode_cells
from allosr2_core.pipeline import Backend, Pipeline, decode, encode, prepare, sink_into
from allosr2_core.tiling.exact import window_of


def encoded(pipeline: Pipeline, image: Tensor, tile: int = 0, **size: Any) -> tuple[Tensor, Target]:
    """z_L of a batch, and what its results are to become; `size` as `prepare` takes it, by default a scale of 4."""
    target = prepare(image, pipeline.config, **(size or {"scale": 4.0}))
    items = [target.item(number) for number in range(image.shape[0])]
    parts = [encode(pipeline.backend, pipeline.config, i.layout, i.window(), tile=tile) for i in items]
    return torch.cat(parts), target


def decoded(backend: Backend, z: Tensor, config: AlloSR2Config, tile: int = 0) -> Tensor:
    """The pixels [1, H, W, 3] of scaled latents, padding and all."""
    layout = Layout.plain(*(side * config.latent_downscale for side in z.shape[2:]))
    result = torch.empty(layout.height, layout.width, 3)
    side = decode_cells(config, tile)
    decode(backend, layout, window_of(z), sink_into(result, layout), down=config.latent_downscale, side=side)
    return result[None]


def enlarged(target: Target) -> Tensor:
    """What the encoder sees of one picture, [1, H, W, 3] in [0, 1], padding and all."""
    layout = target.layout
    whole = target.window()(slice(0, layout.padded_height), slice(0, layout.padded_width))
    return whole.movedim(1, -1) * 0.5 + 0.5


def settled(pixels: Tensor, target: Target, color: str = "none") -> Tensor:
    """The results [B, height, width, 3 or 4] of decoded and still padded pictures [B, H, W, 3] in [0, 1]."""
    results, layout = target.empty(pixels.shape[0]), target.layout
    for number, result in enumerate(results):
        sink_into(result, layout).put(0, 0, pixels[number, : layout.restored_height, : layout.restored_width])
        settle(result, target.item(number), color)
    return results
