"""FLUX.1's KL autoencoder: a picture in [-1, 1] to a scaled latent eight times smaller, and back.

Compatible with Black Forest Labs' file by state-dict names and shapes. The architecture is that of latent diffusion
(Rombach et al. 2022): residual conv blocks with group norm, one attention over space at the smallest scale; FLUX.1 has
16 latent channels and no 1x1 `quant_conv`.

Shape letters: B batch, C channels, H x W pixels, h x w latent cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..dataclass_reader import Length, Range, check_fields
from ..errors import AlloSR2Error
from ..tiling.kl_strips import streamed_decode, streamed_encode
from .autoencoders import Autoencoder, autoencoder
from .kl_layers import NORM_GROUPS, Downsample, Level, Middle, ResnetBlock, Upsample, conv3, group_norm

BUDGET = 2.0**31
"""Bytes that the feature maps of a large picture may take at a time."""


@dataclass(frozen=True)
class KLAutoencoderParams:
    """The architecture, all of it; no field has a default. In brackets: FLUX.1's value."""

    in_channels: Annotated[int, Range(1, 64)]
    """Channels of the picture that goes in (3)."""
    out_ch: Annotated[int, Range(1, 64)]
    """Channels of the picture that comes out (3)."""
    ch: Annotated[int, Range(1, 8192)]
    """Channels at full resolution; a multiple of 32, the group norm's groups (128)."""
    ch_mult: Annotated[tuple[int, ...], Range(1, 64), Length(1, 8)]
    """Channels of each level over `ch`; every level but the last halves the size ((1, 2, 4, 4))."""
    num_res_blocks: Annotated[int, Range(1, 64)]
    """Residual blocks a level in the encoder, one more in the decoder (2)."""
    z_channels: Annotated[int, Range(1, 1024)]
    """Channels of the latent (16)."""
    scale_factor: Annotated[float, Range(1e-6, 1e6)]
    """Latent scale: z = scale_factor * (raw - shift_factor) (0.3611)."""
    shift_factor: Annotated[float, Range(-1e6, 1e6)]
    """Latent shift (0.1159)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ch_mult", tuple(self.ch_mult))  # JSON gives a list
        check_fields(self)
        if self.ch % NORM_GROUPS:
            raise AlloSR2Error(f"ch must be a multiple of {NORM_GROUPS}, got {self.ch!r}")

    @property
    def latent_channels(self) -> int:
        """The same as `z_channels`."""
        return self.z_channels

    @property
    def downscale(self) -> int:
        """Pixels along one side of a latent cell (8)."""
        return 2 ** (len(self.ch_mult) - 1)

    @property
    def latent_format(self) -> tuple[float, float]:
        """Scale and shift."""
        return self.scale_factor, self.shift_factor

    @property
    def encoder_radius(self) -> None:
        """Attention and group norms see the whole."""
        return None

    @property
    def decoder_radius(self) -> None:
        """Likewise."""
        return None


def _run(part: nn.Module, x: Tensor, *, again: bool) -> Tensor:
    """part(x); with `again` the backward pass computes it anew from x instead of keeping what is inside."""
    if again and torch.is_grad_enabled():
        return checkpoint(part, x, use_reentrant=False)
    return part(x)


class Encoder(nn.Module):
    """Picture -> mean and log variance of the raw latent, (B, 2 * z_channels, h, w)."""

    gradient_checkpointing = False
    """Keep only the inputs of levels for the backward pass and compute the rest again."""

    def __init__(self, params: KLAutoencoderParams) -> None:
        super().__init__()
        widths = [params.ch * mult for mult in params.ch_mult]
        channels, last = params.ch, len(widths) - 1
        self.conv_in = conv3(params.in_channels, channels)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            blocks = [ResnetBlock(width if n else channels, width) for n in range(params.num_res_blocks)]
            self.down.append(Level(blocks, downsample=Downsample(width) if level < last else None))
            channels = width
        self.mid = Middle(channels)
        self.norm_out = group_norm(channels)
        self.conv_out = conv3(channels, 2 * params.z_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = self.conv_in(x_BCHW)
        for part in (*self.down, self.mid):
            h = _run(part, h, again=self.gradient_checkpointing)
        return self.conv_out(functional.silu(self.norm_out(h)))


class Decoder(nn.Module):
    """Raw latent -> picture. Levels are numbered as in the encoder, so they run from the last to the first."""

    gradient_checkpointing = False
    """As in the encoder."""

    def __init__(self, params: KLAutoencoderParams) -> None:
        super().__init__()
        widths = [params.ch * mult for mult in params.ch_mult]
        channels = widths[-1]
        self.conv_in = conv3(params.z_channels, channels)
        self.mid = Middle(channels)
        levels: list[Level] = []
        for level, width in reversed(list(enumerate(widths))):
            blocks = [ResnetBlock(width if n else channels, width) for n in range(params.num_res_blocks + 1)]
            levels.insert(0, Level(blocks, upsample=Upsample(width) if level > 0 else None))
            channels = width
        self.up = nn.ModuleList(levels)
        self.norm_out = group_norm(channels)
        self.conv_out = conv3(channels, params.out_ch)

    def forward(self, raw_BChw: Tensor) -> Tensor:
        h = self.conv_in(raw_BChw)
        for part in (self.mid, *reversed(self.up)):
            h = _run(part, h, again=self.gradient_checkpointing)
        return self.conv_out(functional.silu(self.norm_out(h)))


@autoencoder("kl", KLAutoencoderParams)
class KLAutoencoder(Autoencoder):
    """Encoder, decoder, and the scale and shift between the raw latent and the flow's."""

    params: KLAutoencoderParams
    encoder: Encoder
    decoder: Decoder

    def __init__(self, params: KLAutoencoderParams) -> None:
        super().__init__(params)
        self.encoder = Encoder(params)
        self.decoder = Decoder(params)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The levels and the middles of encoder and decoder."""
        return [*self.encoder.down, self.encoder.mid, self.decoder.mid, *self.decoder.up]

    def set_gradient_checkpointing(self, on: bool) -> None:
        self.encoder.gradient_checkpointing = self.decoder.gradient_checkpointing = on

    def encode(self, x: Tensor) -> Tensor:
        """Picture -> scaled latent, the posterior's mean.

        Args:
            x: picture (B, in_channels, H, W) in [-1, 1]; height and width multiples of `params.downscale`.

        Returns:
            z (B, z_channels, H / downscale, W / downscale), scaled.

        Raises:
            AlloSR2Error: channels or size do not fit.
        """
        params, down = self.params, self.params.downscale
        if x.ndim != 4 or x.shape[1] != params.in_channels:
            raise AlloSR2Error(f"x: expected (B, {params.in_channels}, H, W), got {tuple(x.shape)}")
        if 0 in x.shape or x.shape[2] % down or x.shape[3] % down:
            raise AlloSR2Error(f"x: expected height and width in multiples of {down}, got {tuple(x.shape)}")
        return params.scale_factor * (_mean(self.encoder(x)) - params.shift_factor)

    def decode(self, z: Tensor) -> Tensor:
        """Scaled latent (B, z_channels, h, w) -> picture (B, out_ch, H, W), nominally in [-1, 1].

        Raises:
            AlloSR2Error: channels do not fit.
        """
        if z.ndim != 4 or z.shape[1] != self.params.z_channels:
            raise AlloSR2Error(f"z: expected (B, {self.params.z_channels}, h, w), got {tuple(z.shape)}")
        return self.decoder(z / self.params.scale_factor + self.params.shift_factor)

    def scaled_encode(self, pixels: Tensor, scale: float, shift: float) -> Tensor:
        """As `Autoencoder`; in strips where the picture is large, with the statistics of the whole."""
        return (_mean(streamed_encode(self.encoder, pixels, BUDGET)) - shift) * scale

    def scaled_decode(self, z: Tensor, scale: float, shift: float) -> Tensor:
        """As `Autoencoder`; in strips where the picture is large, with the statistics of the whole."""
        return streamed_decode(self.decoder, z / scale + shift, BUDGET)

    def forward(self, x: Tensor) -> Tensor:
        """Picture -> its reconstruction, through the posterior's mean."""
        return self.decode(self.encode(x))


def _mean(moments: Tensor) -> Tensor:
    """The first half of the posterior's mean and log variance."""
    return moments.chunk(2, dim=1)[0]
