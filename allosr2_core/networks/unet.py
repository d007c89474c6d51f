"""The small velocity network of the embedded checkpoint: a norm-free residual U-Net on latents, modulated by t.

Purely local (no attention, no statistics over space), so that a tile with enough context gives the same values as the
whole picture. The sign of t reaches the network through the sine half of the time embedding: t > 0 is the generative
flow, t < 0 the flow of the SR outputs (our reading of the paper's section 3, ATM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..dataclass_reader import check_fields, read_dataclass
from ..errors import AlloSR2Error
from ..flow import expand, linear_velocity
from ..precision import convert_convolutions
from ..ranges import Length, Range
from .activation import silu_of_own
from .registry import VelocityNetwork, network


@dataclass(frozen=True)
class UNetParams:
    """Architecture of `VelocityUNet`; no defaults, every checkpoint states all of them."""

    latent_channels: Annotated[int, Range(1, 1024)]
    """Channels of z, in and out."""
    channels: Annotated[tuple[int, ...], Range(1, 8192), Length(1, 8)]
    """Width of each level, finest first; each level halves the resolution of the one before."""
    blocks: Annotated[tuple[int, ...], Range(1, 64), Length(1, 8)]
    """Residual blocks per level on the way down; the same number again on the way up, except at the coarsest."""
    time_dim: Annotated[int, Range(2, 8192)]
    """Width of the time embedding, even."""
    preconditioned: bool
    """Whether the layers estimate the local variance of the data, from which the best linear guess of the velocity
    follows in closed form (`flow.linear_velocity`), and what to add to it in units of the deviation it leaves."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        check_fields(self)
        if len(self.channels) != len(self.blocks):
            raise AlloSR2Error(f"expected as many channels as blocks; got {self.channels} and {self.blocks}")
        if self.time_dim % 2:
            raise AlloSR2Error(f"expected an even time_dim; got {self}")

    @property
    def stride(self) -> int:
        """Latents are padded to multiples of this inside the network."""
        return 2 ** (len(self.channels) - 1)

    @property
    def radius(self) -> int:
        """How far, in latent cells, an output depends on the input: the context a tile needs to be exact."""
        reach = 2  # conv_in and conv_out
        for level, blocks in enumerate(self.blocks):
            passes = 1 if level == len(self.blocks) - 1 else 2
            reach += (2 * blocks * passes + (1 if level else 0)) * 2**level
        return reach

    @classmethod
    def read(cls, spec: Mapping[str, Any], where: str) -> UNetParams:
        """From a checkpoint's table; older files do not say whether they are preconditioned: they are not."""
        return read_dataclass(cls, {"preconditioned": False, **spec}, where)


LOG_VARIANCE = (-14.0, 6.0)
"""Range of the local log variance of a latent channel: from none to what clipped highlights reach."""


def time_embedding(t: Tensor, dim: int, max_period: float = 1000.0) -> Tensor:
    """Sinusoidal embedding of a signed time: [B] -> [B, dim], fp32. cos is even and sin odd in t, so +t and -t differ.

    Frequencies fall geometrically from 1000 rad to 1 rad per unit of t.
    """
    half = dim // 2
    freqs = max_period ** torch.linspace(1.0, 0.0, half, device=t.device, dtype=torch.float32)
    angles_BD = t.float()[:, None] * freqs[None]
    return torch.cat([angles_BD.cos(), angles_BD.sin()], dim=1)


def zero_(layer: nn.Module) -> None:
    """Set every parameter of a layer to zero, in place."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class TimeResBlock(nn.Module):
    """x + conv2(silu(scale-shift(conv1(silu(x))))); conv2 starts at zero, so a fresh block is the identity."""

    def __init__(self, channels: int, time_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(time_dim, 2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        zero_(self.conv2)
        zero_(self.modulation)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.modulation(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(x))
        h = torch.addcmul(shift.to(h.dtype), h, (1.0 + scale).to(h.dtype))
        return self.conv2(silu_of_own(h)).add_(x)


class Level(nn.ModuleList):
    """The residual blocks of one resolution, in order."""

    def __init__(self, channels: int, blocks: int, time_dim: int) -> None:
        super().__init__(TimeResBlock(channels, time_dim) for _ in range(blocks))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for block in self:
            x = block(x, emb)
        return x


@network("unet", UNetParams)
class VelocityUNet(VelocityNetwork):
    """velocity(z_BCHW, t_B, cond) -> v_BCHW. Any height and width >= 1: padded inside by replication, cropped after."""

    def __init__(self, params: UNetParams) -> None:
        super().__init__()
        self.params = params
        c, n, d = params.channels, params.blocks, params.time_dim
        self.time_mlp = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU())
        self.conv_in = nn.Conv2d(params.latent_channels, c[0], 3, padding=1)
        self.down = nn.ModuleList(Level(c[i], n[i], d) for i in range(len(c)))
        self.shrink = nn.ModuleList(nn.Conv2d(c[i], c[i + 1], 2, stride=2) for i in range(len(c) - 1))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(c[i + 1], c[i], 2, stride=2) for i in range(len(c) - 1))
        self.up = nn.ModuleList(Level(c[i], n[i], d) for i in range(len(c) - 1))
        outputs = params.latent_channels * (2 if params.preconditioned else 1)
        self.conv_out = nn.Conv2d(c[0], outputs, 3, padding=1)
        zero_(self.conv_out)

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of the maps: that of the convolutions' weights."""
        return self.conv_in.weight.dtype

    @property
    def time_dtype(self) -> torch.dtype:
        """Of what depends on the time alone: that of its layers' weights."""
        return next(self.time_mlp.parameters()).dtype

    def compute_in(self, dtype: torch.dtype) -> None:
        convert_convolutions(self, dtype)

    def forward(self, z: Tensor, t: Tensor, cond: object = None) -> Tensor:
        """z [B, C, H, W] scaled latents, t [B] in [-1, 1]; `cond` is accepted for the shared protocol and unused.

        The velocity has the type of z. The preconditioning is computed in fp32.
        """
        if z.ndim != 4 or z.shape[1] != self.params.latent_channels:
            raise AlloSR2Error(f"expected z of shape [B, {self.params.latent_channels}, H, W]; got {tuple(z.shape)}")
        height, width = z.shape[-2:]
        out = self.conv_out(silu_of_own(self._levels(z, t)))[:, :, :height, :width]
        if not self.params.preconditioned:
            return out.to(z.dtype)
        v, log_variance = out.float().chunk(2, dim=1)
        linear, deviation = linear_velocity(expand(t, v), log_variance.clamp(*LOG_VARIANCE).exp())
        return (linear * z.float() + deviation * v).to(z.dtype)

    def features(self, z: Tensor, t: Tensor) -> list[Tensor]:
        """What leaves each level, down and up again; maps of different widths and resolutions."""
        seen: list[Tensor] = []
        self._levels(z, t, seen)
        return seen

    def _levels(self, z: Tensor, t: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """What leaves the last level, of the padded size; `seen` is given what leaves each."""
        pad_h, pad_w = (-side % self.params.stride for side in z.shape[-2:])
        h = F.pad(z, (0, pad_w, 0, pad_h), mode="replicate") if pad_h or pad_w else z
        if self.params.preconditioned:
            h = h.float()
            h = h * linear_velocity(expand(t, h), torch.ones_like(h[:, :1, :1, :1]))[1]  # unit variance at every time
        emb = self.time_mlp(time_embedding(t, self.params.time_dim).to(self.time_dtype)).expand(z.shape[0], -1)

        h = self.conv_in(h.to(self.compute_dtype))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            h = blocks(h, emb)
            if seen is not None:
                seen.append(h)
            if level < len(self.shrink):
                skips.append(h)
                h = self.shrink[level](h)
        for level in reversed(range(len(self.grow))):
            h = self.grow[level](h).add_(skips.pop())
            h = self.up[level](h, emb)
            if seen is not None:
                seen.append(h)
        return h
