"""The pipeline, shared by the command line and the nodes, so that both give the same picture.

    image -> bicubic to the target size -> pad -> encode -> z_L -> t* -> one flow step -> decode -> crop -> colour

A host supplies its own `encode`, `velocity` and `decode`; the functions here never ask what is behind them.
Tiles are in pixels of the target picture. `tick` is called once per tile of every part (progress and interrupts).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import lora
from .autoencoder import Autoencoder
from .checkpoint import HOST_ENCODER, HOST_FLOW, LORA_ENCODER, LORA_FLOW, Checkpoint
from .checkpoint_config import AlloSR2Config
from .codecs import Codec, scaled_functions
from .color import match_color
from .errors import AlloSR2Error
from .exact_decode import exact_tile_count, exact_tiled
from .flow import VelocityFn, one_step, start_state, t_from_rho
from .image import crop, pad_to_multiple, resize_bicubic, split_alpha, target_size
from .snr import SNRHead, paired_rho
from .tiling import tile_count, tiled_apply
from .transformer import Flux, FluxConditioning, FluxVelocity

Tick = Callable[[], None]
METHODS = ("calibrated", "predicted", "paired", "manual")
PAD_MULTIPLE_CELLS = 4
"""Pictures are padded to this many latent cells: the U-Net's stride."""
MIN_SIDE = 64
"""Smaller targets are padded to this, px: a network that has seen no border closer than that invents at it."""
DEFAULT_OVERLAP = 64
"""Overlap of neighbouring flow tiles, px."""


@dataclass(frozen=True)
class Backend:
    """The three networks as functions on one item. Pixels are [1, 3, H, W] in [-1, 1], latents scaled."""

    encode: Callable[[Tensor], Tensor]
    velocity: VelocityFn
    decode: Callable[[Tensor], Tensor]
    encoder_radius: int | None
    decoder_radius: int | None
    """Context, in latent cells, that encoder and decoder need around a tile to be exact; None = the whole picture."""


@dataclass(frozen=True)
class Prepared:
    """An image at its target size, ready to encode, with what the end of the pipeline needs."""

    pixels: Tensor
    """[B, H', W', 3] in [0, 1], padded at the right and bottom."""
    height: int
    width: int
    """The target size before padding."""
    alpha: Tensor | None
    """[B, height, width] in [0, 1], or None."""
    reference: Tensor
    """[B, height, width, 3]: the bicubic enlargement, reference of the colour match."""


@dataclass(frozen=True)
class TimestepEstimate:
    """Where the one step starts, and why."""

    t: Tensor
    """[B], within the trained range."""
    rho: Tensor
    """[B], RMS(z_L - z_H) measured or predicted; for "calibrated" and "manual" the value t stands for."""
    snr_db: Tensor
    """[B], 10 log10(E[z_L^2] / rho^2): signal-to-noise ratio of the input's latent."""
    report: str
    map: Tensor
    """[B, h, w] local rho per latent cell (constant where the method knows none)."""


# --- the parts ----------------------------------------------------------------------------------------------------


def prepare(image: Tensor, config: AlloSR2Config, scale: float | None = None, long_edge: int | None = None) -> Prepared:
    """Image [B, H, W, 3 or 4] in [0, 1] -> `Prepared` at exactly round(H scale) x round(W scale), or the long edge."""
    rgb, alpha = split_alpha(image)
    height, width = target_size(rgb.shape[1], rgb.shape[2], scale=scale, long_edge=long_edge)
    reference = resize_bicubic(rgb, height, width)
    if alpha is not None:
        alpha = resize_bicubic(alpha[..., None], height, width)[..., 0]
    pixels = pad_to_multiple(reference, PAD_MULTIPLE_CELLS * config.latent_downscale, MIN_SIDE)
    return Prepared(pixels=pixels, height=height, width=width, alpha=alpha, reference=reference)


def to_network(image: Tensor) -> Tensor:
    """[B, H, W, 3] in [0, 1] -> [B, 3, H, W] in [-1, 1]."""
    return image.movedim(-1, 1).float() * 2.0 - 1.0


def from_network(pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] -> [B, H, W, 3] clamped to [0, 1]."""
    return (pixels.movedim(1, -1).float() * 0.5 + 0.5).clamp(0.0, 1.0)


def encode(backend: Backend, pixels: Tensor, config: AlloSR2Config, tile: int = 0, tick: Tick | None = None) -> Tensor:
    """Padded pixels [B, H, W, 3] in [0, 1] -> scaled latents, equal to those of one pass. Refuses NaN pixels."""
    check_pixels(pixels)
    down = config.latent_downscale
    return _exact(backend.encode, to_network(pixels), config, tile, backend.encoder_radius, 1.0 / down, tick)


def decode(backend: Backend, z: Tensor, config: AlloSR2Config, tile: int = 0, tick: Tick | None = None) -> Tensor:
    """Scaled latents -> pixels [B, H, W, 3] in [0, 1], equal to those of one pass."""
    pixels = _exact(backend.decode, z, config, tile, backend.decoder_radius, config.latent_downscale, tick)
    check_finite(pixels, "the decoder's output")
    return from_network(pixels)


def check_pixels(pixels: Tensor) -> None:
    """AlloSR2Error for NaN or infinite pixels."""
    if not bool(torch.isfinite(pixels).all()):
        raise AlloSR2Error("expected an image of finite pixels in 0..1; it has NaN or infinite values")


def _exact(
    fn: Callable[[Tensor], Tensor],
    x: Tensor,
    config: AlloSR2Config,
    tile: int,
    radius: int | None,
    scale: float,
    tick: Tick | None,
) -> Tensor:
    """Tile by tile with exact context, or where there is no finite context item by item."""
    if radius is None:
        whole = max(x.shape[-2:])
        return exact_tiled(fn, x, whole, 0, scale, tick)
    return exact_tiled(fn, x, _tile_cells(config, tile), radius, scale, tick)


def estimate_t(
    z_lr: Tensor,
    config: AlloSR2Config,
    head: SNRHead | None,
    method: str,
    z_hr: Tensor | None = None,
    manual: float | None = None,
) -> TimestepEstimate:
    """The time t* of latents z_L [B, C, h, w] by one of `METHODS`; always within the trained range.

    "paired" needs z_hr of the same shape (an upper bound: it looks at the answer); "manual" needs a time in (0, 1).
    """
    batch = z_lr.shape[0]
    shape = (batch, *z_lr.shape[-2:])
    if method == "calibrated":
        raw_t = torch.full((batch,), config.t_star)
        local = None
    elif method == "predicted":
        if head is None:
            raise AlloSR2Error("expected a checkpoint with an SNR head for t method 'predicted'; it has none")
        with torch.no_grad():
            raw_t = torch.cat([t_from_rho(head(z[None].float()).exp()) for z in z_lr]).cpu()
            local = torch.cat([head.local_map(z[None].float()) for z in z_lr])[:, 0].cpu()
    elif method == "paired":
        if z_hr is None:
            raise AlloSR2Error("expected a high-resolution reference for t method 'paired'; none is connected")
        raw_t = t_from_rho(paired_rho(z_lr, z_hr)).cpu()
        local = (z_lr - z_hr).float().square().mean(dim=1).sqrt().cpu()
    elif method == "manual":
        if manual is None or not 0.0 < manual < 1.0:
            raise AlloSR2Error(f"expected a manual t between 0 and 1; got {manual}")
        raw_t = torch.full((batch,), float(manual))
        local = None
    else:
        raise AlloSR2Error(f"expected the t method to be one of {METHODS}; got {method!r}")
    t = config.clamp_t(raw_t)
    rho = raw_t / (1.0 - raw_t)
    power = z_lr.float().flatten(1).square().mean(dim=1).cpu()
    snr_db = 10.0 * torch.log10(power / rho.square().clamp(min=1e-12) + 1e-12)
    if local is None:
        local = rho[:, None, None].expand(shape)
    lines = [
        f"{method}: t* = {float(t[i]):.3f}{'' if t[i] == raw_t[i] else f' (clamped from {float(raw_t[i]):.3f})'}, "
        f"rho = {float(rho[i]):.3f}, SNR = {float(snr_db[i]):.1f} dB"
        for i in range(batch)
    ]
    lines.append(f"calibrated t* = {config.t_star:.3f}, trained range {config.t_min:.2f} to {config.t_max:.2f}")
    return TimestepEstimate(t=t, rho=rho, snr_db=snr_db, report="\n".join(lines), map=local)


def restore(
    velocity: VelocityFn,
    z_lr: Tensor,
    t: Tensor,
    config: AlloSR2Config,
    realism: float = 1.0,
    tile: int = 0,
    overlap: int = DEFAULT_OVERLAP,
    tick: Tick | None = None,
) -> Tensor:
    """The one step: z_L [B, C, h, w] and t [B] (or one for all) -> restored latents of the same shape.

    t is limited to the trained range. realism r >= 0 scales how far the result leaves the input, z_L + r (z_hat - z_L):
    0 is the input, 1 as trained. Pictures larger than a tile are cut into overlapping tiles and blended. Non-finite
    results raise, with what to try.
    """
    if not (math.isfinite(realism) and realism >= 0):
        raise AlloSR2Error(f"expected realism >= 0; got {realism}")
    if t.numel() not in (1, z_lr.shape[0]):
        raise AlloSR2Error(f"expected one t, or one for each of {z_lr.shape[0]} images; got {t.numel()}")
    times = config.clamp_t(t.float().reshape(-1)).expand(z_lr.shape[0])
    cells, cells_overlap = flow_tile(config, tile, overlap)
    items = []
    for z, t_1 in zip(z_lr.split(1), times.split(1), strict=True):

        def step(z_tile: Tensor, t_1: Tensor = t_1) -> Tensor:
            t_tile = t_1.to(z_tile.device)
            return one_step(velocity, start_state(z_tile, t_tile, config.init), t_tile)

        z_hat = tiled_apply(step, z, cells, min(cells_overlap, cells - 1), tick=tick)
        items.append(z + realism * (z_hat - z))
    result = torch.cat(items)
    check_finite(result, "the flow's output")
    return result


def finish(pixels: Tensor, prepared: Prepared, color: str) -> Tensor:
    """Decoded pixels [B, H', W', 3] -> cropped, colour matched to the input once and globally, alpha re-attached."""
    image = match_color(crop(pixels, prepared.height, prepared.width), prepared.reference, color)
    return image if prepared.alpha is None else torch.cat([image, prepared.alpha[..., None].to(image)], dim=-1)


def check_finite(x: Tensor, what: str) -> None:
    """Raise when a result has NaN or infinite values."""
    if not bool(torch.isfinite(x).all()):
        raise AlloSR2Error(
            f"{what} has NaN or infinite values: run the model and the VAE in fp32 or bf16 instead of fp16, lower the "
            "strength or remove other patches from the model"
        )


# --- tiles --------------------------------------------------------------------------------------------------------


def _tile_cells(config: AlloSR2Config, tile: int) -> int:
    """Tile side in latent cells; 0 means the checkpoint's own."""
    if tile < 0:
        raise AlloSR2Error(f"expected a tile of 0 (automatic) or more pixels; got {tile}")
    size = tile or config.tile_size
    step = PAD_MULTIPLE_CELLS * config.latent_downscale
    return max(PAD_MULTIPLE_CELLS, size // step * PAD_MULTIPLE_CELLS)


def flow_tile(config: AlloSR2Config, tile: int, overlap: int) -> tuple[int, int]:
    """Side and overlap of a flow tile in latent cells."""
    if overlap < 0:
        raise AlloSR2Error(f"expected an overlap of 0 or more pixels; got {overlap}")
    cells = _tile_cells(config, tile)
    return cells, min(-(-overlap // config.latent_downscale), cells // 2)


def count_ticks(prepared: Prepared, config: AlloSR2Config, tile: int, overlap: int) -> tuple[int, int, int]:
    """How often `tick` is called per image in encode, flow and decode."""
    height, width = (side // config.latent_downscale for side in prepared.pixels.shape[1:3])
    cells, cells_overlap = flow_tile(config, tile, overlap)
    codec = exact_tile_count(height, width, cells) if config.is_local_codec else 1
    return codec, tile_count(height, width, cells, cells_overlap), codec


# --- all of it ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Upscaler:
    """A checkpoint's networks, built once, for the command line and for evaluation."""

    config: AlloSR2Config
    backend: Backend
    head: SNRHead | None

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, strength: float = 1.0) -> Upscaler:
        """Build every network of a standalone checkpoint on the CPU in fp32."""
        autoencoder, network = checkpoint.build_autoencoder(strength), checkpoint.build_network(strength)
        radii = (autoencoder.encoder_radius, autoencoder.decoder_radius)
        return cls._of(checkpoint, autoencoder, network, radii)

    @classmethod
    def from_adapter(
        cls, checkpoint: Checkpoint, transformer: Flux, autoencoder: Autoencoder, strength: float = 1.0
    ) -> Upscaler:
        """Put an adapter on its base's networks, which get its branches: pass copies to keep yours.

        Raises AlloSR2Error when the adapter brings no empty prompt.
        """
        config, dtype = checkpoint.config, next(transformer.parameters()).dtype
        if checkpoint.null is None:
            raise AlloSR2Error("expected an adapter with an empty prompt (null.context, null.pooled); it has none")
        parts = ((transformer, LORA_FLOW, HOST_FLOW), (autoencoder.encoder, LORA_ENCODER, HOST_ENCODER))
        for part, group, prefix in parts:
            if tensors := checkpoint.group(group):
                lora.import_lora(part, {name: value.float() for name, value in tensors.items()}, prefix)
                lora.set_scale(part, strength)
        guidance = config.network.get("guidance")
        context, pooled = (part.float() for part in checkpoint.null)
        cond = FluxConditioning(context, pooled, None if guidance is None else torch.tensor([float(guidance)]))
        velocity = FluxVelocity(transformer, compute_dtype=dtype)
        return cls._of(checkpoint, autoencoder, lambda z, t: velocity(z, t, cond), (None, None))

    @classmethod
    def _of(
        cls, checkpoint: Checkpoint, codec: Codec, velocity: VelocityFn, radii: tuple[int | None, int | None]
    ) -> Upscaler:
        config = checkpoint.config
        encode, decode = scaled_functions(codec, config.latent_scale, config.latent_shift)
        backend = Backend(
            encode=encode, velocity=velocity, decode=decode, encoder_radius=radii[0], decoder_radius=radii[1]
        )
        return cls(config=config, backend=backend, head=checkpoint.build_snr_head())

    @torch.inference_mode()
    def upscale(
        self,
        image: Tensor,
        scale: float | None = 4.0,
        long_edge: int | None = None,
        t: float | str | None = None,
        realism: float = 1.0,
        tile: int = 0,
        overlap: int = DEFAULT_OVERLAP,
        color: str = "none",
        tick: Tick | None = None,
    ) -> Tensor:
        """Image [B, H, W, 3 or 4] in [0, 1] -> enlarged image, item by item.

        t: a time in (0, 1), "calibrated", "predicted", or None for what the checkpoint recommends.
        """
        config, backend, items = self.config, self.backend, []
        method = config.t_method if t is None else t if isinstance(t, str) else "manual"
        manual = None if t is None or isinstance(t, str) else float(t)
        for item in image.split(1):
            prepared = prepare(item, config, scale=scale, long_edge=long_edge)
            z_lr = encode(backend, prepared.pixels, config, tile, tick)
            estimate = estimate_t(z_lr, config, self.head, method, manual=manual)
            z_hr = restore(backend.velocity, z_lr, estimate.t, config, realism, tile, overlap, tick)
            items.append(finish(decode(backend, z_hr, config, tile, tick), prepared, color))
        return torch.cat(items)
