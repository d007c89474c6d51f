"""FLUX.1's KL autoencoder: a picture in [-1, 1] to a scaled latent eight times smaller, and back.

Compatible with Black Forest Labs' file by state-dict names and shapes. The architecture is that of latent diffusion
(Rombach et al. 2022): residual conv blocks with group norm, one attention over space at the smallest scale; FLUX.1 has
16 latent channels and no 1x1 `quant_conv`.

Shape letters: B batch, C channels, H x W pixels, h x w latent cells.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..errors import AlloSR2Error
from .operations import Operations

NORM_GROUPS = 32
NORM_EPS = 1e-6
LOGVAR_RANGE = (-30.0, 20.0)  # keeps exp() finite; the bounds of latent diffusion


@dataclass(frozen=True)
class AutoencoderParams:
    """The architecture, all of it; no field has a default. In brackets: FLUX.1's value."""

    in_channels: int
    """Channels of the picture that goes in (3)."""
    out_ch: int
    """Channels of the picture that comes out (3)."""
    ch: int
    """Channels at full resolution; a multiple of 32, the group norm's groups (128)."""
    ch_mult: tuple[int, ...]
    """Channels of each level over `ch`; every level but the last halves the size ((1, 2, 4, 4))."""
    num_res_blocks: int
    """Residual blocks a level in the encoder, one more in the decoder (2)."""
    z_channels: int
    """Channels of the latent (16)."""
    scale_factor: float
    """Latent scale: z = scale_factor * (raw - shift_factor) (0.3611)."""
    shift_factor: float
    """Latent shift (0.1159)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ch_mult", tuple(self.ch_mult))  # JSON gives a list
        if self.ch < NORM_GROUPS or self.ch % NORM_GROUPS:
            raise AlloSR2Error(f"ch must be a positive multiple of {NORM_GROUPS}, got {self.ch!r}")
        sizes = (self.in_channels, self.out_ch, self.num_res_blocks, self.z_channels, *self.ch_mult)
        if not self.ch_mult or any(type(size) is not int or size < 1 for size in sizes):
            raise AlloSR2Error(f"channels, ch_mult and num_res_blocks must be integers >= 1, got {self}")
        if not self.scale_factor > 0:
            raise AlloSR2Error(f"scale_factor must be positive, got {self.scale_factor!r}")

    @property
    def downscale(self) -> int:
        """Pixels along one side of a latent cell (8)."""
        return 2 ** (len(self.ch_mult) - 1)


class Autoencoder(nn.Module):
    """Encoder, decoder, and the scale and shift between the raw latent and the flow's.

    Args:
        params: the architecture.
        operations: namespace of layers, torch.nn or a host's.
        device, dtype: where and in what precision the weights are made.
    """

    def __init__(
        self,
        params: AutoencoderParams,
        *,
        operations: Operations = nn,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.params = params
        make = _Layers(operations, {"device": device, "dtype": dtype})
        self.encoder = Encoder(params, make)
        self.decoder = Decoder(params, make)

    @property
    def downscale(self) -> int:
        """Pixels along one side of a latent cell."""
        return self.params.downscale

    def encode(self, x_BCHW: Tensor, *, sample: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """Picture -> scaled latent.

        Args:
            x_BCHW: picture in [-1, 1]; height and width multiples of `params.downscale`.
            sample: draw from the posterior; otherwise its mean, which is deterministic.
            generator: source of the draw, on the device of the picture.

        Returns:
            z (B, z_channels, H / downscale, W / downscale), scaled.

        Raises:
            AlloSR2Error: channels or size do not fit.
        """
        params, down = self.params, self.params.downscale
        if x_BCHW.ndim != 4 or x_BCHW.shape[1] != params.in_channels:
            raise AlloSR2Error(f"x: expected (B, {params.in_channels}, H, W), got {tuple(x_BCHW.shape)}")
        if 0 in x_BCHW.shape or x_BCHW.shape[2] % down or x_BCHW.shape[3] % down:
            raise AlloSR2Error(f"x: expected height and width in multiples of {down}, got {tuple(x_BCHW.shape)}")
        mean, logvar = self.encoder(x_BCHW).chunk(2, dim=1)
        raw = mean
        if sample:
            noise = torch.empty_like(mean).normal_(generator=generator)
            raw = mean + torch.exp(0.5 * logvar.clamp(*LOGVAR_RANGE)) * noise
        return params.scale_factor * (raw - params.shift_factor)

    def decode(self, z_BChw: Tensor) -> Tensor:
        """Scaled latent (B, z_channels, h, w) -> picture (B, out_ch, H, W), nominally in [-1, 1].

        Raises:
            AlloSR2Error: channels do not fit.
        """
        if z_BChw.ndim != 4 or z_BChw.shape[1] != self.params.z_channels:
            raise AlloSR2Error(f"z: expected (B, {self.params.z_channels}, h, w), got {tuple(z_BChw.shape)}")
        return self.decoder(z_BChw / self.params.scale_factor + self.params.shift_factor)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Picture -> its reconstruction, through the posterior's mean."""
        return self.decode(self.encode(x_BCHW))


class _Layers:
    """Makes the layers of one autoencoder, all on one device and in one precision."""

    def __init__(self, operations: Operations, place: dict[str, Any]) -> None:
        self.operations = operations
        self.place = place

    def conv(self, inside: int, outside: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
        return self.operations.Conv2d(inside, outside, kernel_size=kernel, stride=stride, padding=padding, **self.place)

    def conv3(self, inside: int, outside: int) -> nn.Module:
        return self.conv(inside, outside, kernel=3, padding=1)

    def norm(self, channels: int) -> nn.Module:
        return self.operations.GroupNorm(num_groups=NORM_GROUPS, num_channels=channels, eps=NORM_EPS, **self.place)


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 conv on x where the channels change."""

    def __init__(self, inside: int, outside: int, make: _Layers) -> None:
        super().__init__()
        self.norm1, self.conv1 = make.norm(inside), make.conv3(inside, outside)
        self.norm2, self.conv2 = make.norm(outside), make.conv3(outside, outside)
        self.nin_shortcut = make.conv(inside, outside, kernel=1) if inside != outside else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """One-head attention over all positions; its 1x1 convs are linear layers on the channels."""

    def __init__(self, channels: int, make: _Layers) -> None:
        super().__init__()
        self.norm = make.norm(channels)
        self.q, self.k, self.v = (make.conv(channels, channels, kernel=1) for _ in range(3))
        self.proj_out = make.conv(channels, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        # Contiguous: with another layout PyTorch falls back on a whole matrix of scores, 16 GiB for 2048 x 2048 px.
        q, k, v = (layer(normed).flatten(2).transpose(1, 2)[:, None].contiguous() for layer in (self.q, self.k, self.v))
        seen = functional.scaled_dot_product_attention(q, k, v)  # B 1 (H W) C
        return x + self.proj_out(seen[:, 0].transpose(1, 2).reshape(x.shape))


class Middle(nn.Module):
    """Residual block, attention, residual block, at the smallest scale."""

    def __init__(self, channels: int, make: _Layers) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, make)
        self.attn_1 = AttnBlock(channels, make)
        self.block_2 = ResnetBlock(channels, channels, make)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Half the size by a strided 3x3 conv that sees one row and column of zeros past the right and bottom edge."""

    def __init__(self, channels: int, make: _Layers) -> None:
        super().__init__()
        self.conv = make.conv(channels, channels, kernel=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size by repeating pixels, then a 3x3 conv."""

    def __init__(self, channels: int, make: _Layers) -> None:
        super().__init__()
        self.conv = make.conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The residual blocks of one resolution and the step to the next one, down or up, where there is one."""

    def __init__(
        self, blocks: list[ResnetBlock], *, downsample: Downsample | None = None, upsample: Upsample | None = None
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.downsample = downsample
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if self.downsample is not None:
            x = self.downsample(x)
        if self.upsample is not None:
            x = self.upsample(x)
        return x


def _run(part: nn.Module, x: Tensor, *, again: bool) -> Tensor:
    """part(x); with `again` the backward pass computes it anew from x instead of keeping what is inside."""
    if again and torch.is_grad_enabled():
        return checkpoint(part, x, use_reentrant=False)
    return part(x)


class Encoder(nn.Module):
    """Picture -> mean and log variance of the raw latent, (B, 2 * z_channels, h, w)."""

    gradient_checkpointing = False
    """Keep only the inputs of levels for the backward pass and compute the rest again."""

    def __init__(self, params: AutoencoderParams, make: _Layers) -> None:
        super().__init__()
        widths = [params.ch * mult for mult in params.ch_mult]
        channels, last = params.ch, len(widths) - 1
        self.conv_in = make.conv3(params.in_channels, channels)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            blocks = [ResnetBlock(width if n else channels, width, make) for n in range(params.num_res_blocks)]
            self.down.append(Level(blocks, downsample=Downsample(width, make) if level < last else None))
            channels = width
        self.mid = Middle(channels, make)
        self.norm_out = make.norm(channels)
        self.conv_out = make.conv3(channels, 2 * params.z_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = self.conv_in(x_BCHW)
        for part in (*self.down, self.mid):
            h = _run(part, h, again=self.gradient_checkpointing)
        return self.conv_out(functional.silu(self.norm_out(h)))


class Decoder(nn.Module):
    """Raw latent -> picture. Levels are numbered as in the encoder, so they run from the last to the first."""

    gradient_checkpointing = False
    """As in the encoder."""

    def __init__(self, params: AutoencoderParams, make: _Layers) -> None:
        super().__init__()
        widths = [params.ch * mult for mult in params.ch_mult]
        channels = widths[-1]
        self.conv_in = make.conv3(params.z_channels, channels)
        self.mid = Middle(channels, make)
        levels: list[Level] = []
        for level, width in reversed(list(enumerate(widths))):
            blocks = [ResnetBlock(width if n else channels, width, make) for n in range(params.num_res_blocks + 1)]
            levels.insert(0, Level(blocks, upsample=Upsample(width, make) if level > 0 else None))
            channels = width
        self.up = nn.ModuleList(levels)
        self.norm_out = make.norm(channels)
        self.conv_out = make.conv3(channels, params.out_ch)

    def forward(self, raw_BChw: Tensor) -> Tensor:
        h = self.conv_in(raw_BChw)
        for part in (self.mid, *reversed(self.up)):
            h = _run(part, h, again=self.gradient_checkpointing)
        return self.conv_out(functional.silu(self.norm_out(h)))
