"""A checkpoint's networks, built once, and whole pictures through them: for the command line and for evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import lora
from .autoencoder import Autoencoder
from .checkpoint import HOST_ENCODER, HOST_FLOW, LORA_ENCODER, LORA_FLOW, Checkpoint
from .checkpoint_config import AlloSR2Config
from .codecs import Codec, scaled_functions
from .color import check_method, match_color
from .enlarged import Enlarged
from .errors import AlloSR2Error
from .exact_decode import exact_tiles
from .flow import VelocityFn, t_from_rho
from .image.geometry import padded_length, resize_bicubic, split_alpha, target_size
from .lent_memory import Receding, lend
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
    decode_cells,
    estimate_t,
    from_network,
    predicted_power,
    restore,
    stride,
    tile_and_context,
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
    shifted: bool
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
        shifted: bool = False,
        tick: Tick | None = None,
    ) -> Tensor:
        """Image [B, H, W, 3 or 4] in [0, 1] -> enlarged image, item by item.

        t: a time in (0, 1), "calibrated", "predicted", or None for what the checkpoint recommends.
        shifted: see `restore`.
        """
        config = self.config
        check_pixels(image)
        check_realism(realism)
        check_method(color)
        method = config.t_method if t is None else t if isinstance(t, str) else "manual"
        manual = None if t is None or isinstance(t, str) else float(t)
        how = _How(method, manual, realism, tile, overlap, shifted, tick)
        rgb, alpha = split_alpha(image)
        height, width = target_size(rgb.shape[1], rgb.shape[2], scale=scale, long_edge=long_edge)
        out = torch.empty(image.shape[0], height, width, 3 if alpha is None else 4)
        for number, item in enumerate(rgb.split(1)):
            result = out[number, ..., :3]
            self._restore(item, out[number], how)
            if color != "none":
                reference = resize_bicubic(item, height, width)
                result.copy_(match_color(result[None], reference, color)[0])
            if alpha is not None:
                out[number, ..., 3] = resize_bicubic(alpha[number, None, ..., None], height, width)[0, ..., 0]
        return out

    def _restore(self, image: Tensor, out_HWC: Tensor, how: _How) -> None:
        """One picture [1, H, W, 3] into out[..., :3], with the tiles and values of the nodes.

        The latents live in the memory of `out` (lent_memory.py).
        """
        config, backend, down = self.config, self.backend, self.config.latent_downscale
        height, width = out_HWC.shape[:2]
        padded = padded_length(height, stride(config), MIN_SIDE), padded_length(width, stride(config), MIN_SIDE)
        cells = padded[0] // down, padded[1] // down
        shapes = [(config.latent_channels, *cells)] * 2
        if self.head is not None:
            shapes.append(self.head.features_shape(*cells))
        z_hr, z_lr, *features = lend(out_HWC, shapes)

        tile, radius = tile_and_context(tile_cells(config, how.tile), backend.encoder_radius, max(cells))
        enlarged = Enlarged(image, height, width, *padded).window
        for rows, cols, z in exact_tiles(backend.encode, enlarged, *cells, tile, radius, 1.0 / down, how.tick):
            z_lr[:, :, rows, cols] = z
        if how.method == "predicted":
            t = t_from_rho(log_rho(predicted_power(z_lr, self.head, *features)).exp())
        else:  # other times do not look at z_L
            t = estimate_t(z_lr[:, :, :1, :1], config, self.head, how.method, manual=how.manual).t
        tiles = {"tile": how.tile, "overlap": how.overlap, "shifted": how.shifted}
        restore(backend.velocity, z_lr, t, config, how.realism, **tiles, tick=how.tick, out=z_hr)

        tile, radius = tile_and_context(decode_cells(config, how.tile), backend.decoder_radius, max(cells))
        source = Receding(z_hr, out_HWC)
        for rows, cols, pixels in exact_tiles(backend.decode, source.window, *cells, tile, radius, down, how.tick):
            check_finite(pixels, "the decoder's output")
            if (rows.stop, cols.stop) != padded:  # after the last tile z_H is not asked for
                source.make_room(min(rows.stop, height), max(0, rows.start // down - radius))
            inside = out_HWC[rows, cols, :3]  # without the padding
            inside.copy_(from_network(pixels)[0, : inside.shape[0], : inside.shape[1]])
