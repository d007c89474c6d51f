"""A checkpoint's networks, built once, and whole pictures through them: for the command line and for evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .adapters import lora
from .checkpoint.config import AlloSR2Config
from .checkpoint.format import HOST_ENCODER, HOST_FLOW, LORA_ENCODER, LORA_FLOW, Checkpoint
from .errors import AlloSR2Error
from .finish import Target, settle
from .flow import VelocityFn, t_from_rho
from .image.color import check_method
from .image.geometry import split_alpha
from .image.resample import Resampled
from .image.windowed_bicubic import Enlarged
from .layout import Layout
from .lent_memory import Receding, lend
from .networks.codecs import Codec, scaled_functions
from .networks.flux import Flux, FluxConditioning, FluxVelocity
from .networks.kl_autoencoder import Autoencoder
from .snr import SNRHead, log_rho
from .tiling.exact import exact_tiles
from .upscale import (
    DEFAULT_OVERLAP,
    Backend,
    Tick,
    check_finite,
    check_pixels,
    check_realism,
    count_ticks,
    decode_cells,
    estimate_t,
    from_network,
    predicted_power,
    restore,
    source_of,
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
        mask: Tensor | None = None,
        tick: Tick | None = None,
    ) -> Tensor:
        """Image [B, H, W, 3 or 4] in [0, 1] -> enlarged image, item by item.

        t: a time in (0, 1), "calibrated", "predicted", or None for what the checkpoint recommends.
        shifted: see `restore`. mask: [1 or B, H, W], see `finish.Target`.
        """
        check_pixels(image)
        check_realism(realism)
        check_method(color)
        how = _How(*self._method(t), realism, tile, overlap, shifted, tick)
        rgb, alpha = split_alpha(image)
        layout = Layout.of(rgb.shape[1], rgb.shape[2], self.config, scale=scale, long_edge=long_edge)
        out = torch.empty(image.shape[0], layout.height, layout.width, 3 if alpha is None else 4)
        for number in range(image.shape[0]):
            here = slice(number, number + 1)
            source = source_of(rgb[here], None if alpha is None else alpha[here], layout)
            item = Target(
                layout,
                source,
                None if alpha is None else alpha[here],
                mask if mask is None or mask.shape[0] == 1 else mask[here],
            )
            self._restore(source, out[number], layout, how)
            settle(out[number], item, color)
        return out

    @torch.inference_mode()
    def predict_t(self, image: Tensor, scale: float | None = 4.0, long_edge: int | None = None) -> float:
        """The time that `upscale` starts at for the first picture of [B, H, W, 3 or 4] when it is given none."""
        rgb, alpha = split_alpha(image[:1])
        layout = Layout.of(rgb.shape[1], rgb.shape[2], self.config, scale=scale, long_edge=long_edge)
        cells = self._cells(layout)
        z_lr = torch.empty(1, self.config.latent_channels, *cells)
        self._encode(source_of(rgb, alpha, layout), layout, z_lr, tile=0, tick=None)
        return float(estimate_t(z_lr, self.config, self.head, self.config.t_method).t)

    def ticks(
        self,
        height: int,
        width: int,
        scale: float | None = None,
        long_edge: int | None = None,
        tile: int = 0,
        overlap: int = DEFAULT_OVERLAP,
    ) -> int:
        """How often `tick` is called for one picture of height x width px."""
        layout = Layout.of(height, width, self.config, scale=scale, long_edge=long_edge)
        return sum(count_ticks(layout, self.config, tile, overlap))

    def _method(self, t: float | str | None) -> tuple[str, float | None]:
        """Method and manual time."""
        if t is None:
            return self.config.t_method, None
        return (t, None) if isinstance(t, str) else ("manual", float(t))

    def _cells(self, layout: Layout) -> tuple[int, int]:
        down = self.config.latent_downscale
        return layout.padded_height // down, layout.padded_width // down

    def _encode(self, source: Tensor, layout: Layout, z_lr: Tensor, tile: int, tick: Tick | None) -> None:
        """The latents of the enlarged source [1, H, W, 3] into z_L [1, C, h, w], window by window."""
        cells = self._cells(layout)
        side, radius = tile_and_context(tile_cells(self.config, tile), self.backend.encoder_radius, max(cells))
        restored = (layout.restored_height, layout.restored_width)
        enlarged = Enlarged(source, *restored, layout.padded_height, layout.padded_width).window
        scale = 1.0 / self.config.latent_downscale
        for rows, cols, z in exact_tiles(self.backend.encode, enlarged, *cells, side, radius, scale, tick):
            z_lr[:, :, rows, cols] = z

    def _restore(self, source: Tensor, out_HWC: Tensor, layout: Layout, how: _How) -> None:
        """One picture [1, H, W, 3] into out[..., :3], with the tiles and values of the nodes.

        The latents live in the memory of `out` (lent_memory.py) where that is filled from the top. A result of another
        size than the restored picture is summed up from its tiles, and the latents have memory of their own.
        """
        config, backend, down = self.config, self.backend, self.config.latent_downscale
        cells = self._cells(layout)
        shapes = [(config.latent_channels, *cells)] * 2
        if self.head is not None:
            shapes.append(self.head.features_shape(*cells))
        z_hr, z_lr, *features = lend(out_HWC if not layout.resampled else out_HWC[:0], shapes)

        self._encode(source, layout, z_lr, how.tile, how.tick)
        if how.method == "predicted":
            t = t_from_rho(log_rho(predicted_power(z_lr, self.head, *features)).exp())
        else:  # other times do not look at z_L
            t = estimate_t(z_lr[:, :, :1, :1], config, self.head, how.method, manual=how.manual).t
        tiles = {"tile": how.tile, "overlap": how.overlap, "shifted": how.shifted}
        restore(backend.velocity, z_lr, t, config, how.realism, **tiles, tick=how.tick, out=z_hr)
        del z_lr

        tile, radius = tile_and_context(decode_cells(config, how.tile), backend.decoder_radius, max(cells))
        restored = (layout.restored_height, layout.restored_width)
        result = out_HWC[..., :3]
        resampled = Resampled(result, *restored) if layout.resampled else None
        lent = Receding(z_hr, out_HWC)
        for rows, cols, pixels in exact_tiles(backend.decode, lent.window, *cells, tile, radius, down, how.tick):
            check_finite(pixels, "the decoder's output")
            piece = from_network(pixels)[0]
            piece = piece[: max(0, restored[0] - rows.start), : max(0, restored[1] - cols.start)]  # without the padding
            if resampled is not None:
                resampled.add(rows.start, cols.start, piece)
                continue
            if (rows.stop, cols.stop) != (layout.padded_height, layout.padded_width):  # after the last tile it is done
                lent.make_room(min(rows.stop, layout.height), max(0, rows.start // down - radius))
            result[rows, cols].copy_(piece)
        if resampled is not None:
            result.clamp_(0.0, 1.0)
