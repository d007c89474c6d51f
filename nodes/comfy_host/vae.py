"""A host VAE as the core's encoder and decoder: in exact tiles where it states a receptive field, else whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...allosr2_core import pipeline
from ...allosr2_core.errors import AlloSR2Error
from ...allosr2_core.layout import Layout, count_ticks
from ...allosr2_core.tiling.blended import tile_count, tiled_apply
from ...allosr2_core.tiling.exact import Tick, Window, exact_tile_count, window_of
from . import kl_autoencoder
from .execution import Ticker, stop_if_cancelled
from .memory import free_memory, load_vae, retry_on_oom
from .patches import add_patches_strictly
from .preview import Both, Preview

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE

    from ...allosr2_core.checkpoint.config import AlloSR2Config

PLAIN = "allosr2.plain"
"""Where the patcher of a VAE with AlloSR2's patches carries the patcher without them."""
LARGEST_DECODE_TILE = 512
"""Side in px of an automatic decode tile. Any size gives the same picture; this one keeps cancelling quick."""
BLEND_OVERLAP = 64
"""px that neighbouring tiles share when a decode is blended."""
SMALLEST_TILE = 64
"""px; the last size tried when the device runs out of memory."""


# --- patched and plain ------------------------------------------------------------------------------------------------


def patch_encoder(vae: VAE, tensors: Mapping[str, Tensor], strength: float) -> VAE:
    """The VAE with AlloSR2's patches on its encoder at `strength`; what came in stays as it is."""
    patcher = vae.patcher.clone()
    add_patches_strictly(patcher, tensors, strength)
    patcher.set_attachments(PLAIN, vae.patcher)
    return _with_patcher(vae, patcher)


def without_patches(vae: VAE) -> VAE:
    """The VAE that `patch_encoder` was given: the encoder that high-resolution pictures had in training."""
    plain = vae.patcher.get_attachment(PLAIN)
    if plain is None:
        raise AlloSR2Error("expected the VAE that the AlloSR2 Loader hands out; got another one")
    return _with_patcher(vae, plain)


def _with_patcher(vae: VAE, patcher: ModelPatcher) -> VAE:
    """The same VAE around another patcher. The host clones patchers and text encoders, but has no clone of a VAE."""
    other = copy.copy(vae)
    other.patcher = patcher
    return other


# --- encode and decode ------------------------------------------------------------------------------------------------


def radii(vae: VAE) -> tuple[int | None, int | None]:
    """Context in latent cells that encoder and decoder need around a tile to be exact; None = the whole picture.

    The embedded checkpoint's VAE states them; the host's own state none.
    """
    return getattr(vae, "encoder_radius", None), getattr(vae, "decoder_radius", None)


def _input_dtype(vae: VAE) -> torch.dtype:
    """What pixels and latents are handed to a VAE's networks in; the embedded checkpoint's take fp32 in any type."""
    return getattr(vae, "input_dtype", vae.vae_dtype)


def encode(vae: VAE, layout: Layout, window: Window, config: AlloSR2Config, tick: Tick) -> Tensor:
    """One enlarged picture by windows -> scaled latents [1, C, h, w].

    A local encoder is tiled exactly; any other sees the picture whole.
    """
    backend, smallest = _backend(vae, config), config.tile_size
    if backend.encoder_radius is not None:
        load_vae(vae, vae.memory_used_encode((1, 3, config.tile_size, config.tile_size), vae.vae_dtype))
        smallest = SMALLEST_TILE
    return retry_on_oom(
        lambda tile: pipeline.encode(backend, config, layout, window, tile=tile, tick=tick), config.tile_size, smallest
    )


def encode_ticks(layout: Layout, config: AlloSR2Config) -> int:
    """How often `encode` ticks."""
    return count_ticks(layout, config, 0, 0)[0]


def decoder(
    vae: VAE, latent_BChw: Tensor, layout: Layout, *, tile: int, exact: bool
) -> Callable[[Tensor, Tensor, Tensor | None], None]:
    """A function of raw latents [1, C, h, w] and a result [H, W, 3 or 4] that decodes one picture into the other.

    With the input [1, h, w, 3] as a third value the node shows the picture as its tiles are done; see `preview.py`.

    latent: all pictures that will be decoded; one progress bar counts them. tile: px, 0 = automatic. exact: a local
    decoder (the embedded checkpoint's) is tiled with real surroundings, so that the result is that of one pass over the
    whole; any other VAE makes that one pass (KL autoencoders in strips, when memory is short). Otherwise overlapping
    tiles are blended.
    """
    batch, channels, height, width = latent_BChw.shape
    backend = _backend(vae)
    if exact and backend.decoder_radius is None:
        whole = Ticker(batch)

        def decode_whole(z: Tensor, result: Tensor, source: Tensor | None) -> None:
            _put(kl_autoencoder.decode(vae, z, stop_if_cancelled), result, layout)
            whole()

        return decode_whole
    down = int(vae.spacial_compression_decode())
    tile = tile or _decode_tile(vae, channels, down)
    cells = max(1, tile // down)
    load_vae(vae, vae.memory_used_decode((1, channels, min(cells, height), min(cells, width)), vae.vae_dtype))
    shared = min(BLEND_OVERLAP // down, cells // 2)
    count = exact_tile_count(height, width, cells) if exact else tile_count(height, width, cells, shared)
    tick = Ticker(batch * count)

    def decode_exactly(z: Tensor, result: Tensor, source: Tensor | None) -> None:
        tick.preview = None if source is None else Preview(source, layout)

        def attempt(tile: int) -> None:
            sink, side = pipeline.sink_into(result, layout), max(1, tile // down)
            if tick.preview is not None:
                sink = Both(sink, tick.preview)
            pipeline.decode(backend, layout, window_of(z), sink, down=down, side=side, tick=tick)

        retry_on_oom(attempt, tile, SMALLEST_TILE)

    def decode_blended(z: Tensor, result: Tensor, source: Tensor | None) -> None:
        pixels_1CHW = tiled_apply(backend.decode, z, cells, shared, scale_out=down, tick=tick)
        pipeline.check_finite(pixels_1CHW, "the decoder's output")
        _put(vae.process_output(pixels_1CHW).movedim(1, -1), result, layout)

    return decode_exactly if exact else decode_blended


def _put(pixels_1HWC: Tensor, result: Tensor, layout: Layout) -> None:
    """A whole decoded picture into its result, without the padding."""
    pixels_HWC = pixels_1HWC[0, : layout.restored_height, : layout.restored_width]
    pipeline.sink_into(result, layout).put(0, 0, pixels_HWC)


def _decode_tile(vae: VAE, channels: int, down: int) -> int:
    """The largest tile, px, whose decode takes at most half the free memory."""
    tile, free = LARGEST_DECODE_TILE, free_memory(vae)
    while tile > SMALLEST_TILE:
        if vae.memory_used_decode((1, channels, tile // down, tile // down), vae.vae_dtype) <= 0.5 * free:
            break
        tile //= 2
    return tile


def _backend(vae: VAE, config: AlloSR2Config | None = None) -> pipeline.Backend:
    """The VAE's first stage as functions of one item: pixels in [-1, 1], raw latents. Load it first.

    With a configuration, the latents that are encoded are scaled.
    """
    network, (encoder_radius, decoder_radius) = vae.first_stage_model, radii(vae)
    given = {"device": vae.device, "dtype": _input_dtype(vae)}
    scale, shift = (1.0, 0.0) if config is None else (config.latent_scale, config.latent_shift)

    def encode_tile(x: Tensor) -> Tensor:
        return (network.encode(x.to(**given)).to(vae.output_device).float() - shift) * scale

    def encode_whole(x: Tensor) -> Tensor:
        return (kl_autoencoder.encode(vae, x.movedim(1, -1) * 0.5 + 0.5, stop_if_cancelled) - shift) * scale

    def decode(z: Tensor) -> Tensor:
        return network.decode(z.to(**given)).to(vae.output_device).float()

    return pipeline.Backend(
        encode=encode_whole if encoder_radius is None else encode_tile,
        velocity=_no_velocity,
        decode=decode,
        encoder_radius=encoder_radius,
        decoder_radius=decoder_radius,
    )


def _no_velocity(z: Tensor, t: Tensor) -> Tensor:
    raise AlloSR2Error("a VAE has no velocity")
