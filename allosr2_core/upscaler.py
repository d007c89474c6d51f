"""A checkpoint's networks, built once, and whole pictures through them: for the command line and for evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import lora
from .autoencoder import Autoencoder
from .bands import KEPT_CELLS, Part, Rows, decoded_rows, restored_rows, whole_map
from .checkpoint import HOST_ENCODER, HOST_FLOW, LORA_ENCODER, LORA_FLOW, Checkpoint
from .checkpoint_config import AlloSR2Config
from .codecs import Codec, scaled_functions
from .color import check_method, match_color
from .enlarged import Enlarged
from .errors import AlloSR2Error
from .exact_decode import exact_rows
from .flow import VelocityFn, t_from_rho
from .image import crop, pad_to_multiple, padded_length, resize_bicubic, split_alpha, target_size
from .snr import SNRHead, log_rho
from .transformer import Flux, FluxConditioning, FluxVelocity
from .upscale import (
    DEFAULT_OVERLAP,
    MIN_SIDE,
    Backend,
    Tick,
    check_finite,
    check_pixels,
    check_realism,
    decode,
    decode_cells,
    encode,
    estimate_t,
    flow_plan,
    from_network,
    restore,
    step_at,
    stride,
    tile_cells,
)


@dataclass(frozen=True)
class _How:
    """What `Upscaler.upscale` was asked for, the same for every picture of a batch."""

    method: str
    manual: float | None
    realism: float
    tile: int
    overlap: int
    tick: Tick | None


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
        config = self.config
        check_pixels(image)
        check_realism(realism)
        check_method(color)
        method = config.t_method if t is None else t if isinstance(t, str) else "manual"
        manual = None if t is None or isinstance(t, str) else float(t)
        how = _How(method, manual, realism, tile, overlap, tick)
        rgb, alpha = split_alpha(image)
        height, width = target_size(rgb.shape[1], rgb.shape[2], scale=scale, long_edge=long_edge)
        out = torch.empty(image.shape[0], height, width, 3 if alpha is None else 4)
        for number, item in enumerate(rgb.split(1)):
            result = out[number, ..., :3]
            if config.is_local_codec:
                self._in_bands(item, result, how)
            else:
                self._at_once(item, result, how)
            if color != "none":
                reference = resize_bicubic(item, height, width)
                result.copy_(match_color(result[None], reference, color)[0])
            if alpha is not None:
                out[number, ..., 3] = resize_bicubic(alpha[number, None, ..., None], height, width)[0, ..., 0]
        return out

    def _at_once(self, image: Tensor, out_HWC: Tensor, how: _How) -> None:
        """One picture through networks that see it whole."""
        config, backend = self.config, self.backend
        pixels = pad_to_multiple(resize_bicubic(image, *out_HWC.shape[:2]), stride(config), MIN_SIDE)
        z_lr = encode(backend, pixels, config, how.tile, how.tick)
        t = estimate_t(z_lr, config, self.head, how.method, manual=how.manual).t
        z_hr = restore(backend.velocity, z_lr, t, config, how.realism, how.tile, how.overlap, how.tick)
        out_HWC.copy_(crop(decode(backend, z_hr, config, how.tile, how.tick), *out_HWC.shape[:2])[0])

    def _in_bands(self, image: Tensor, out_HWC: Tensor, how: _How) -> None:
        """One picture through local networks, with the tiles and values of `_at_once` and memory for bands of rows."""
        config, backend, down = self.config, self.backend, self.config.latent_downscale
        height, width = out_HWC.shape[:2]
        padded = padded_length(height, stride(config), MIN_SIDE), padded_length(width, stride(config), MIN_SIDE)
        enlarged, cells = Enlarged(image, height, width, *padded), (padded[0] // down, padded[1] // down)
        tile, plan = tile_cells(config, how.tile), flow_plan(config, *cells, how.tile, how.overlap)
        encoder = Part(backend.encode, backend.encoder_radius or 0, 1.0 / down)
        decoder = Part(backend.decode, backend.decoder_radius or 0, down)

        def encoded(tick: Tick | None) -> Rows:
            rows = exact_rows(encoder.run, enlarged.window, *cells, tile, encoder.radius, encoder.scale, tick)
            return Rows(rows, cells[0])

        z_lr = encoded(how.tick)
        if how.method == "predicted" and self.head is not None and cells[0] * cells[1] > KEPT_CELLS:
            features = Part(self.head.features, self.head.radius, 1.0 / self.head.downscale)
            log_power = self.head.log_power_of(whole_map(features, encoded(None), *cells, tile))
            t = config.clamp_t(t_from_rho(log_rho(log_power).exp()))
        else:
            seen = cells[0] if how.method == "predicted" else min(tile, cells[0])  # other times do not look at z_L
            t = estimate_t(z_lr.window(slice(0, seen)), config, self.head, how.method, manual=how.manual).t
        one = step_at(backend.velocity, t, config)

        def step(z: Tensor) -> Tensor:
            z_hat = one(z)
            check_finite(z_hat, "the flow's output")
            return z_hat

        z_hr = Rows(restored_rows(step, z_lr, plan, how.realism, how.tick), cells[0])
        first = 0
        for pixels in decoded_rows(decoder, z_hr, *cells, decode_cells(config, how.tile), how.tick):
            check_finite(pixels, "the decoder's output")
            rows = from_network(pixels)[0, : max(0, height - first), :width]  # the last may be padding only
            out_HWC[first : first + rows.shape[0]] = rows
            first += pixels.shape[2]
