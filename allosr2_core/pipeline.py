"""A picture's way through a checkpoint, from top to bottom.

    image -> prepare -> encode -> z_L -> start time -> t* -> step -> z_H -> decode -> settle -> image

`Pipeline.upscale` goes it in a row, for the command line and for measurements. The nodes call the parts one by one, on
the host's MODEL and VAE: a `Backend` is three functions, and nothing here asks what is behind them. Sides of tiles are
in px of the restored picture. `tick` is called once per tile of every part (progress and interrupts).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .adapters import lora
from .checkpoint.config import AlloSR2Config
from .checkpoint.contents import HOST_ENCODER, HOST_FLOW, LORA_ENCODER, LORA_FLOW, NULL
from .checkpoint.format import Checkpoint
from .devices import CPU, on_device
from .errors import AlloSR2Error
from .finish import Target, settle
from .flow import VelocityFn, one_step, start_state, t_from_rho
from .image.alpha import fill_hidden
from .image.geometry import resize_bicubic, split_alpha
from .image.resample import Placed, Resampled
from .image.values import check_image
from .layout import Layout, count_ticks, decode_cells, flow_plan, tile_cells
from .lent_memory import Receding, lend
from .networks.autoencoders import Autoencoder
from .networks.registry import VelocityNetwork
from .options import DEFAULT_OVERLAP, UpscaleOptions, check_options
from .options import check as check_option
from .precision import computed_in
from .snr import SNRHead, log_rho
from .start_time import estimate_t, predicted_power
from .tiling.blended import apply_plan
from .tiling.exact import Tick, Window, exact_tiles, window_of

PLAIN = UpscaleOptions()
"""Everything as trained, four times larger."""
Sink = Placed | Resampled
"""Where decoded pieces go: into a result of the restored picture's size, or of another."""


@dataclass(frozen=True)
class Backend:
    """The three networks as functions on one item. Pixels are [1, 3, H, W] in [-1, 1], latents scaled."""

    encode: Callable[[Tensor], Tensor]
    velocity: VelocityFn
    decode: Callable[[Tensor], Tensor]
    encoder_radius: int | None
    decoder_radius: int | None
    """Context, in latent cells, that encoder and decoder need around a tile to be exact; None = the whole picture."""


# --- the parts --------------------------------------------------------------------------------------------------------


def prepare(
    image: Tensor,
    config: AlloSR2Config,
    scale: float | None = None,
    long_edge: int | None = None,
    mask: Tensor | None = None,
) -> Target:
    """Images [B, H, W, 1, 3 or 4] in [0, 1] and the size of their results, as the other parts take them: in fp32.

    Image and mask may have any floating-point type. The result is exactly round(H scale) x round(W scale), or has the
    long edge. mask: see `finish.Target`. Raises AlloSR2Error for images that `check_image` refuses, impossible sizes,
    unfit masks; the sizes are checked before anything is made.
    """
    check_image(image)
    layout = Layout.of(image.shape[1], image.shape[2], config, scale=scale, long_edge=long_edge)
    rgb, alpha = split_alpha(image.float())
    filled = rgb if alpha is None else fill_hidden(rgb, alpha)
    source = resize_bicubic(filled, layout.source_height, layout.source_width)
    return Target(layout, source, _own(alpha), _own(mask))


def _own(part: Tensor | None) -> Tensor | None:
    """A copy in fp32: what a target keeps is nobody else's."""
    return None if part is None else part.to(torch.float32, copy=True)


def encode(
    backend: Backend,
    config: AlloSR2Config,
    layout: Layout,
    window: Window,
    *,
    tile: int = 0,
    tick: Tick | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """One enlarged and padded picture, asked for by windows in [-1, 1] -> scaled latents [1, C, h, w], float32.

    Equal to those of one pass over the whole. out: memory for them.
    """
    cells = layout.cells(config)
    side, radius = _tile_and_context(tile_cells(config, tile), backend.encoder_radius, max(cells))
    z_lr = torch.empty(1, config.latent_channels, *cells) if out is None else out
    scale = 1.0 / config.latent_downscale
    for rows, cols, z in exact_tiles(backend.encode, window, *cells, side, radius, scale, tick):
        z_lr[:, :, rows, cols] = z
    return z_lr


@torch.no_grad()
def step(
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
    check_option("realism", realism)
    if t.numel() not in (1, z_lr.shape[0]):
        raise AlloSR2Error(f"expected one t, or one for each of {z_lr.shape[0]} images; got {t.numel()}")
    times = config.clamp_t(t.float().reshape(-1)).expand(z_lr.shape[0])
    plan = flow_plan(config, z_lr.shape[2], z_lr.shape[3], tile, overlap)
    result = torch.empty_like(z_lr, dtype=torch.float32) if out is None else out
    for number in range(z_lr.shape[0]):
        here = slice(number, number + 1)
        z, z_hat = z_lr[here], result[here]
        apply_plan(_step_at(velocity, times[here], config, shifted), z, plan, tick=tick, out_BCHW=z_hat)
        toward(z, z_hat, realism)
    return result


def toward(z_lr: Tensor, z_hat: Tensor, realism: float) -> None:
    """Restored latents as far from the input's as realism says, in place: z_L + realism (z_hat - z_L)."""
    check_option("realism", realism)
    z_hat.sub_(z_lr).mul_(realism).add_(z_lr)


def _step_at(velocity: VelocityFn, t_1: Tensor, config: AlloSR2Config, shifted: bool) -> Callable[[Tensor], Tensor]:
    """The one step from a time [1], as a function of z_L [1, C, h, w] that refuses to give NaN; see `step`."""
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


def decode(
    backend: Backend, layout: Layout, window: Window, sink: Sink, *, down: int, side: int, tick: Tick | None = None
) -> None:
    """The latents of one picture, asked for by windows, -> the pixels of the restored picture, into the sink.

    Equal to those of one pass over the whole, without the padding, [h, w, 3] in [0, 1], row by row from the top.
    down: pixels along one side of a latent cell. side: of a tile, in cells.
    """
    cells = layout.padded_height // down, layout.padded_width // down
    side, radius = _tile_and_context(side, backend.decoder_radius, max(cells))
    for rows, cols, pixels in exact_tiles(backend.decode, window, *cells, side, radius, down, tick):
        check_finite(pixels, "the decoder's output")
        piece = (pixels[0].movedim(0, -1).float() * 0.5 + 0.5).clamp(0.0, 1.0)
        within = layout.restored_height - rows.start, layout.restored_width - cols.start
        if min(within) > 0:  # small tiles may lie in the padding as a whole
            sink.put(rows.start, cols.start, piece[: within[0], : within[1]])


def finish(
    backend: Backend, config: AlloSR2Config, z_hr: Tensor, target: Target, color: str = "none", tile: int = 0
) -> Tensor:
    """Scaled latents [1, C, h, w] of one picture -> its result [height, width, 3 or 4]: decoded and settled."""
    result, down, side = target.empty(), config.latent_downscale, decode_cells(config, tile)
    decode(backend, target.layout, window_of(z_hr), sink_into(result, target.layout), down=down, side=side)
    settle(result, target, color)
    return result


def sink_into(result_HWC: Tensor, layout: Layout) -> Sink:
    """A sink that fills result[..., :3] with the restored picture, resampled where the result has another size."""
    rgb_HWC = result_HWC[..., :3]
    return Resampled(rgb_HWC, layout.restored_height, layout.restored_width) if layout.resampled else Placed(rgb_HWC)


def check_finite(x: Tensor, what: str) -> None:
    """Raise when a result has NaN or infinite values."""
    if not bool(torch.isfinite(x).all()):
        raise AlloSR2Error(
            f"{what} has NaN or infinite values: run the model and the VAE in fp32 or bf16 instead of fp16, lower the "
            "strength or remove other patches from the model"
        )


def _tile_and_context(cells: int, radius: int | None, whole: int) -> tuple[int, int]:
    """Side of a tile and the context it needs, in latent cells: a picture of `whole` cells where that has no bound."""
    return (whole, 0) if radius is None else (cells, radius)


# --- the whole --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pipeline:
    """A checkpoint's networks, built once, for the command line and for evaluation."""

    config: AlloSR2Config
    backend: Backend
    head: SNRHead | None
    dtype: torch.dtype = torch.float32
    """What the velocity network computes in; pictures and latents are fp32."""
    device: torch.device = CPU
    """Where the networks are; pictures and latents are in main memory."""

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        strength: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device = CPU,
    ) -> Pipeline:
        """Build every network of a standalone checkpoint, to compute on `device`, in `dtype` as far as it can."""
        network, autoencoder = checkpoint.build_network(strength), checkpoint.build_autoencoder(strength)
        head = checkpoint.build_snr_head()
        for part in (network, autoencoder, head):
            if part is not None:
                part.compute_in(dtype)
        return cls._of(checkpoint.config, network, autoencoder, head, device)

    @classmethod
    def from_adapter(
        cls,
        checkpoint: Checkpoint,
        network: VelocityNetwork,
        autoencoder: Autoencoder,
        strength: float = 1.0,
        device: torch.device = CPU,
    ) -> Pipeline:
        """Put an adapter on its base's networks (`bases.read_base`), which get its branches and its empty prompt.

        They compute in the types they come in. Raises AlloSR2Error when the adapter brings no empty prompt.
        """
        if checkpoint.null is None:
            raise AlloSR2Error("expected an adapter with an empty prompt (null.context, null.pooled); it has none")
        network.set_null(checkpoint.group(NULL), checkpoint.config.base)
        parts = ((network.adapted, LORA_FLOW, HOST_FLOW), (autoencoder.adapted, LORA_ENCODER, HOST_ENCODER))
        for part, group, prefix in parts:
            if tensors := checkpoint.group(group):
                lora.import_lora(part, {name: value.float() for name, value in tensors.items()}, prefix)
                lora.set_scale(part, strength)
        return cls._of(checkpoint.config, network, autoencoder, checkpoint.build_snr_head(), device)

    @classmethod
    def _of(
        cls,
        config: AlloSR2Config,
        network: VelocityNetwork,
        autoencoder: Autoencoder,
        head: SNRHead | None,
        device: torch.device,
    ) -> Pipeline:
        scale, shift = config.latent_scale, config.latent_shift
        for part in (network, autoencoder, head):
            if part is not None:
                part.to(device)
        backend = Backend(
            encode=on_device(lambda pixels: autoencoder.scaled_encode(pixels, scale, shift), device),
            velocity=on_device(network, device),
            decode=on_device(lambda z: autoencoder.scaled_decode(z, scale, shift), device),
            encoder_radius=autoencoder.encoder_radius,
            decoder_radius=autoencoder.decoder_radius,
        )
        return cls(config=config, backend=backend, head=head, dtype=computed_in(network.adapted), device=device)

    def upscale(
        self,
        image: Tensor,
        options: UpscaleOptions = PLAIN,
        *,
        mask: Tensor | None = None,
        tick: Tick | None = None,
    ) -> Tensor:
        """Image [B, H, W, 1, 3 or 4] in [0, 1] -> enlarged image, float32, item by item.

        mask: [1 or B, H, W], see `finish.Target`. The result is an ordinary tensor that gradients may be taken of, none
        of which reach the image. Raises AlloSR2Error for options out of their range and as `prepare` does.
        """
        check_options(options)
        with torch.inference_mode():
            targets = prepare(image, self.config, **options.size, mask=mask)
        out = targets.empty(image.shape[0])
        with torch.inference_mode():
            self._fill(out, targets, options, tick)
        return out

    def _fill(self, out: Tensor, targets: Target, options: UpscaleOptions, tick: Tick | None) -> None:
        """The results of all items, into memory made outside of inference mode."""
        config, backend, tile, layout = self.config, self.backend, options.tile, targets.layout
        method, manual = self._method(options.t)
        for number in range(out.shape[0]):
            target, result = targets.item(number), out[number]
            z_hr, z_lr, *features = self._latents(layout, result)
            encode(backend, config, layout, target.window(), tile=tile, tick=tick, out=z_lr)
            if method == "predicted":
                start = t_from_rho(log_rho(predicted_power(z_lr, self.head, *features)).exp())
            else:  # other times do not look at z_L
                start = estimate_t(z_lr[:, :, :1, :1], config, self.head, method, manual=manual).t
            way = {"realism": options.realism, "tile": tile, "overlap": options.overlap, "shifted": options.shifted}
            step(backend.velocity, z_lr, start, config, **way, tick=tick, out=z_hr)
            del z_lr, features
            down, side = config.latent_downscale, decode_cells(config, tile)
            if layout.resampled:
                window, sink = window_of(z_hr), sink_into(result, layout)
            else:
                sink = Receding(z_hr, result, down, backend.decoder_radius or 0)
                window = sink.window
            decode(backend, layout, window, sink, down=down, side=side, tick=tick)
            settle(result, target, options.color)

    @torch.inference_mode()
    def predict_t(self, image: Tensor, options: UpscaleOptions = PLAIN) -> float:
        """The time that `upscale` starts at for the first picture of [B, H, W, 3 or 4] when it is given none."""
        target = prepare(image[:1], self.config, **options.size)
        z_lr = encode(self.backend, self.config, target.layout, target.window())
        return float(estimate_t(z_lr, self.config, self.head, self.config.t_method).t)

    def ticks(self, height: int, width: int, options: UpscaleOptions = PLAIN) -> int:
        """How often `tick` is called for one picture of height x width px."""
        layout = Layout.of(height, width, self.config, **options.size)
        return sum(count_ticks(layout, self.config, options.tile, options.overlap))

    def _method(self, t: float | str | None) -> tuple[str, float | None]:
        """Method and manual time."""
        if t is None:
            return self.config.t_method, None
        return (t, None) if isinstance(t, str) else ("manual", float(t))

    def _latents(self, layout: Layout, result_HWC: Tensor) -> list[Tensor]:
        """Memory for z_H, z_L and the SNR head's features: the result's own where that is filled from the top."""
        shapes = [(self.config.latent_channels, *layout.cells(self.config))] * 2
        if self.head is not None:
            shapes.append(self.head.features_shape(*layout.cells(self.config)))
        return lend(result_HWC[:0] if layout.resampled else result_HWC, shapes)
