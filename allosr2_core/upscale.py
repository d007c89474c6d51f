"""The parts of the pipeline, shared by the command line and the nodes, so that both give the same picture.

    image -> bicubic by the trained factor -> pad -> encode -> z_L -> t* -> one flow step -> decode -> crop
          -> reduced or enlarged to the result's size -> colour -> what is kept of the input -> alpha

A host supplies its own `encode`, `velocity` and `decode`; the functions here never ask what is behind them.
Tiles are in pixels of the restored picture. `tick` is called once per tile of every part (progress and interrupts).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .checkpoint.config import AlloSR2Config
from .errors import AlloSR2Error
from .finish import Target
from .flow import VelocityFn, one_step, start_state, t_from_rho
from .image.alpha import fill_hidden
from .image.geometry import resize_bicubic, split_alpha
from .layout import PAD_MULTIPLE_CELLS, Layout, stride
from .snr import SNRHead, local_rho, log_rho, paired_map, paired_rho
from .tiling.blended import TilePlan, apply_plan
from .tiling.exact import exact_tile_count, exact_tiled

Tick = Callable[[], None]
METHODS = ("calibrated", "predicted", "paired", "manual")
LARGEST_DECODE = 256
"""Side of the largest decode tile, px."""
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
    """Pictures ready to encode, and what is to become of them."""

    pixels: Tensor
    """[B, H', W', 3] in [0, 1]: enlarged by the trained factor, padded at the right and bottom."""
    target: Target


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


def prepare(
    image: Tensor,
    config: AlloSR2Config,
    scale: float | None = None,
    long_edge: int | None = None,
    mask: Tensor | None = None,
) -> Prepared:
    """Images [B, H, W, 1, 3 or 4] in [0, 1] for a result of exactly round(H scale) x round(W scale), or the long edge.

    mask: see `finish.Target`.
    """
    rgb, alpha = split_alpha(image)
    layout = Layout.of(rgb.shape[1], rgb.shape[2], config, scale=scale, long_edge=long_edge)
    source = source_of(rgb, alpha, layout)
    restored = resize_bicubic(source, layout.restored_height, layout.restored_width)
    return Prepared(pixels=layout.padded(restored), target=Target(layout, source, alpha, mask))


def source_of(rgb: Tensor, alpha: Tensor | None, layout: Layout) -> Tensor:
    """What is enlarged: pictures [B, H, W, 3] with hidden colours filled in, reduced where the result is smaller."""
    filled = rgb if alpha is None else fill_hidden(rgb, alpha)
    return resize_bicubic(filled, layout.source_height, layout.source_width)


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
    cells = tile_cells(config, tile)
    return _exact(backend.encode, to_network(pixels), cells, backend.encoder_radius, 1.0 / down, tick)


def decode(backend: Backend, z: Tensor, config: AlloSR2Config, tile: int = 0, tick: Tick | None = None) -> Tensor:
    """Scaled latents -> pixels [B, H, W, 3] in [0, 1], equal to those of one pass."""
    cells = decode_cells(config, tile)
    pixels = _exact(backend.decode, z, cells, backend.decoder_radius, config.latent_downscale, tick)
    check_finite(pixels, "the decoder's output")
    return from_network(pixels)


def check_pixels(pixels: Tensor) -> None:
    """AlloSR2Error for NaN or infinite pixels."""
    if not bool(torch.isfinite(pixels).all()):
        raise AlloSR2Error("expected an image of finite pixels in 0..1; it has NaN or infinite values")


def _exact(
    fn: Callable[[Tensor], Tensor],
    x: Tensor,
    cells: int,
    radius: int | None,
    scale: float,
    tick: Tick | None,
) -> Tensor:
    """Tile by tile with exact context, or where there is no finite context item by item."""
    return exact_tiled(fn, x, *tile_and_context(cells, radius, max(x.shape[-2:])), scale, tick)


def tile_and_context(cells: int, radius: int | None, whole: int) -> tuple[int, int]:
    """Side of a tile and the context it needs, in latent cells: a picture of `whole` cells where that has no bound."""
    return (whole, 0) if radius is None else (cells, radius)


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
        powers = torch.cat([predicted_power(z, head).cpu() for z in z_lr.float().split(1)])
        raw_t = t_from_rho(log_rho(powers).exp())
        local = local_rho(powers, *z_lr.shape[2:])[:, 0]
    elif method == "paired":
        if z_hr is None:
            raise AlloSR2Error("expected a high-resolution reference for t method 'paired'; none is connected")
        raw_t = t_from_rho(paired_rho(z_lr, z_hr)).cpu()
        local = paired_map(z_lr, z_hr)[:, 0].cpu()
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


@torch.no_grad()
def predicted_power(z_1Chw: Tensor, head: SNRHead | None, features_1Chw: Tensor | None = None) -> Tensor:
    """What the SNR head sees in one z_L: `SNRHead.log_power_tiled`."""
    if head is None:
        raise AlloSR2Error("expected a checkpoint with an SNR head for t method 'predicted'; it has none")
    return head.log_power_tiled(z_1Chw, features_1Chw)


@torch.no_grad()
def restore(
    velocity: VelocityFn,
    z_lr: Tensor,
    t: Tensor,
    config: AlloSR2Config,
    realism: float = 1.0,
    tile: int = 0,
    overlap: int = DEFAULT_OVERLAP,
    tick: Tick | None = None,
    out: Tensor | None = None,
    shifted: bool = False,
) -> Tensor:
    """The one step: z_L [B, C, h, w] and t [B] (or one for all) -> restored latents of the same shape, float32.

    t is limited to the trained range. realism r >= 0 scales how far the result leaves the input, z_L + r (z_hat - z_L):
    0 is the input, 1 as trained. Pictures larger than a tile are cut into overlapping tiles and blended. out: float32
    memory for the result. shifted: the step is also taken on a grid shifted by half a patch of the network, and both
    are averaged: twice the work, against patterns that lie on the grid. Non-finite results raise, with what to try.
    """
    check_realism(realism)
    if t.numel() not in (1, z_lr.shape[0]):
        raise AlloSR2Error(f"expected one t, or one for each of {z_lr.shape[0]} images; got {t.numel()}")
    times = config.clamp_t(t.float().reshape(-1)).expand(z_lr.shape[0])
    plan = flow_plan(config, z_lr.shape[2], z_lr.shape[3], tile, overlap)
    result = torch.empty_like(z_lr, dtype=torch.float32) if out is None else out
    for number in range(z_lr.shape[0]):
        here = slice(number, number + 1)
        z, z_hat = z_lr[here], result[here]
        apply_plan(_step_at(velocity, times[here], config, shifted), z, plan, tick=tick, out_BCHW=z_hat)
        z_hat.sub_(z).mul_(realism).add_(z)
    return result


def _step_at(velocity: VelocityFn, t_1: Tensor, config: AlloSR2Config, shifted: bool) -> Callable[[Tensor], Tensor]:
    """The one step from a time [1], as a function of z_L [1, C, h, w] that refuses to give NaN; see `restore`."""
    half = config.patch_cells // 2
    if shifted and not half:
        raise AlloSR2Error("expected a network whose patches have two latent cells or more to shift its grid; has one")

    def one(z: Tensor) -> Tensor:
        t = t_1.to(z.device)
        return one_step(velocity, start_state(z, t, config.init), t)

    def step(z: Tensor) -> Tensor:
        z_hat = one(z)
        if shifted:
            beside = one(functional.pad(z, (half, half, half, half), mode="replicate"))
            z_hat = torch.lerp(z_hat, beside[..., half:-half, half:-half], 0.5)
        check_finite(z_hat, "the flow's output")
        return z_hat

    return step


def check_realism(realism: float) -> None:
    """AlloSR2Error unless realism is a number of at least 0."""
    if not (math.isfinite(realism) and realism >= 0):
        raise AlloSR2Error(f"expected realism >= 0; got {realism}")


def check_finite(x: Tensor, what: str) -> None:
    """Raise when a result has NaN or infinite values."""
    if not bool(torch.isfinite(x).all()):
        raise AlloSR2Error(
            f"{what} has NaN or infinite values: run the model and the VAE in fp32 or bf16 instead of fp16, lower the "
            "strength or remove other patches from the model"
        )


# --- tiles --------------------------------------------------------------------------------------------------------


def tile_cells(config: AlloSR2Config, tile: int) -> int:
    """Tile side in latent cells; 0 means the checkpoint's own."""
    if tile < 0:
        raise AlloSR2Error(f"expected a tile of 0 (automatic) or more pixels; got {tile}")
    size = tile or config.tile_size
    return max(PAD_MULTIPLE_CELLS, size // stride(config) * PAD_MULTIPLE_CELLS)


def decode_cells(config: AlloSR2Config, tile: int) -> int:
    """Side of a decode tile in latent cells: the decoder's widest maps have pixels, a smaller tile saves most."""
    return min(tile_cells(config, tile), max(PAD_MULTIPLE_CELLS, LARGEST_DECODE // config.latent_downscale))


def flow_plan(config: AlloSR2Config, height: int, width: int, tile: int, overlap: int) -> TilePlan:
    """The tiles of the flow on latents of height x width cells.

    tile, overlap: px of the result; tile 0 is automatic. A network that takes tiles of any size gets them all alike,
    up to a quarter larger than the checkpoint's own; others get tiles of exactly their size, the last shifted inward.
    """
    if overlap < 0:
        raise AlloSR2Error(f"expected an overlap of 0 or more pixels; got {overlap}")
    cells = tile_cells(config, tile)
    shared = min(-(-overlap // config.latent_downscale), cells // 2)
    if not config.is_local_flow or height % PAD_MULTIPLE_CELLS or width % PAD_MULTIPLE_CELLS:
        return TilePlan.make(height, width, cells, min(shared, cells - 1))
    most = cells if tile else cells + cells // 4 // PAD_MULTIPLE_CELLS * PAD_MULTIPLE_CELLS
    shared = min(-(-shared // PAD_MULTIPLE_CELLS) * PAD_MULTIPLE_CELLS, most - PAD_MULTIPLE_CELLS)
    return TilePlan.even(height, width, most, shared, PAD_MULTIPLE_CELLS)


def count_ticks(layout: Layout, config: AlloSR2Config, tile: int, overlap: int) -> tuple[int, int, int]:
    """How often `tick` is called per image in encode, flow and decode."""
    height, width = (side // config.latent_downscale for side in (layout.padded_height, layout.padded_width))
    flow = len(flow_plan(config, height, width, tile, overlap))
    if not config.is_local_codec:
        return 1, flow, 1
    encode_tile, decode_tile = tile_cells(config, tile), decode_cells(config, tile)
    return exact_tile_count(height, width, encode_tile), flow, exact_tile_count(height, width, decode_tile)
