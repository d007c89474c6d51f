"""The small autoencoder of the embedded checkpoint: a linear patch basis plus learned residual convolutions.

A latent cell is a 4 x 4 pixel patch projected on its principal components, each scaled to unit variance. That linear
part needs no training and is nearly lossless; zero-initialised residual branches around it are trained. The decoder's
branch ends in convolutions over *pixels*, so neighbouring patches are mixed and a perceptual loss cannot paint a
lattice of independent patches. No statistics over space anywhere: tiles with enough context decode exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from ..dataclass_reader import Range, check_fields
from ..errors import AlloSR2Error
from ..precision import convert_convolutions
from .activation import silu_of_own
from .autoencoders import Autoencoder, autoencoder


@dataclass(frozen=True)
class PatchAutoencoderParams:
    """Architecture of `PatchAutoencoder`; no defaults, every checkpoint states all of them."""

    patch: Annotated[int, Range(2, 64)]
    """Pixels per side of a patch; also the downscale factor from pixels to latents."""
    latent_channels: Annotated[int, Range(1, 1024)]
    """Principal components kept of the 3 * patch^2 values of a patch."""
    hidden: Annotated[int, Range(1, 8192)]
    """Width of the residual branches at latent resolution."""
    blocks: Annotated[int, Range(0, 64)]
    """Residual blocks in each branch."""
    pixel_channels: Annotated[int, Range(1, 1024)]
    """Width of the decoder's convolutions at pixel resolution."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.latent_channels > 3 * self.patch**2:
            raise AlloSR2Error(f"expected 1..3*patch^2 latent channels; got {self}")

    @property
    def downscale(self) -> int:
        """Pixels per latent cell."""
        return self.patch

    @property
    def latent_format(self) -> None:
        """Components have unit variance: no scale and shift of its own."""
        return None

    @property
    def encoder_radius(self) -> int:
        """Context, in latent cells, that an encoded cell depends on."""
        return 2 + 2 * self.blocks

    @property
    def decoder_radius(self) -> int:
        """Context, in latent cells, that a decoded patch depends on."""
        return 1 + 2 * self.blocks + math.ceil(2 / self.patch)


class ConvBlock(nn.Module):
    """x + conv(silu(conv(silu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(silu_of_own(self.conv1(F.silu(x)))).add_(x)


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class PatchEncoder(nn.Module):
    """Pixels [B, 3, H, W] in [-1, 1] -> latents [B, C, H/patch, W/patch]."""

    def __init__(self, params: PatchAutoencoderParams) -> None:
        super().__init__()
        p = params.patch
        self.patch = p
        self.basis = nn.Conv2d(3, params.latent_channels, p, stride=p)
        self.conv_in = nn.Conv2d(3 * p * p, params.hidden, 3, padding=1)
        self.blocks = nn.ModuleList(ConvBlock(params.hidden) for _ in range(params.blocks))
        self.conv_out = _zeroed(nn.Conv2d(params.hidden, params.latent_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(F.pixel_unshuffle(x.to(self.conv_in.weight.dtype), self.patch))
        for block in self.blocks:
            h = block(h)
        return self.basis(x.to(self.basis.weight.dtype)) + self.conv_out(silu_of_own(h))


class PatchDecoder(nn.Module):
    """Latents [B, C, h, w] -> pixels [B, 3, h * patch, w * patch], about [-1, 1] (not clamped)."""

    def __init__(self, params: PatchAutoencoderParams) -> None:
        super().__init__()
        p = params.patch
        self.patch = p
        self.basis = nn.ConvTranspose2d(params.latent_channels, 3, p, stride=p)
        self.conv_in = nn.Conv2d(params.latent_channels, params.hidden, 3, padding=1)
        self.blocks = nn.ModuleList(ConvBlock(params.hidden) for _ in range(params.blocks))
        self.to_pixels = nn.Conv2d(params.hidden, params.pixel_channels * p * p, 1)
        self.pixel_in = nn.Conv2d(3 + params.pixel_channels, params.pixel_channels, 3, padding=1)
        self.pixel_out = _zeroed(nn.Conv2d(params.pixel_channels, 3, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        if self.basis.weight.is_contiguous(memory_format=torch.channels_last):
            z = z.contiguous(memory_format=torch.channels_last)
        base = self.basis(z.to(self.basis.weight.dtype))
        h = self.conv_in(z.to(self.conv_in.weight.dtype))
        for block in self.blocks:
            h = block(h)
        features = F.pixel_shuffle(self.to_pixels(silu_of_own(h)), self.patch)
        pixels = self.pixel_in(torch.cat([base.to(features.dtype), features], dim=1))
        return base + self.pixel_out(silu_of_own(pixels))


@autoencoder("patch", PatchAutoencoderParams)
class PatchAutoencoder(Autoencoder):
    """Encoder and decoder; the latents need no further scale or shift (scale 1, shift 0)."""

    params: PatchAutoencoderParams
    encoder: PatchEncoder
    decoder: PatchDecoder

    def __init__(self, params: PatchAutoencoderParams) -> None:
        super().__init__(params)
        self.encoder = PatchEncoder(params)
        self.decoder = PatchDecoder(params)

    def compute_in(self, dtype: torch.dtype) -> None:
        convert_convolutions(self, dtype, keep=(self.encoder.basis, self.decoder.basis))

    def encode(self, x: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [-1, 1], H and W multiples of `patch` -> latents [B, C, H/patch, W/patch]."""
        p = self.params.patch
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % p or x.shape[3] % p or 0 in x.shape:
            raise AlloSR2Error(f"expected pixels [B, 3, H, W] with H, W multiples of {p}; got {tuple(x.shape)}")
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, h * patch, w * patch]."""
        if z.ndim != 4 or z.shape[1] != self.params.latent_channels:
            raise AlloSR2Error(f"expected latents [B, {self.params.latent_channels}, h, w]; got {tuple(z.shape)}")
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def set_basis(self, mean_P: Tensor, components_PC: Tensor, std_C: Tensor) -> None:
        """Write the linear part. P = 3 * patch^2 values of a patch in `pixel_unshuffle` order (channel, row, column).

        encode: (patch - mean) . component / std;  decode: mean + sum of z * std * component, where mean is the colour
        mean of `mean_P`. Raises on wrong shapes.
        """
        p, c = self.params.patch, self.params.latent_channels
        size = 3 * p * p
        if mean_P.shape != (size,) or components_PC.shape != (size, c) or std_C.shape != (c,):
            raise AlloSR2Error(
                f"expected mean [{size}], components [{size}, {c}], std [{c}]; "
                f"got {tuple(mean_P.shape)}, {tuple(components_PC.shape)}, {tuple(std_C.shape)}"
            )
        kernel_C3pp = rearrange(components_PC, "(rgb row col) c -> c rgb row col", rgb=3, row=p)
        encode, decode = self.encoder.basis, self.decoder.basis
        assert encode.bias is not None and decode.bias is not None  # noqa: S101 - both are built with a bias
        mean_3 = reduce(mean_P, "(rgb cell) -> rgb", "mean", rgb=3)  # a transposed convolution has a bias per colour
        encode.weight.copy_(kernel_C3pp / std_C[:, None, None, None])
        encode.bias.copy_(-(mean_3.repeat_interleave(p * p) @ components_PC) / std_C)
        decode.weight.copy_(kernel_C3pp * std_C[:, None, None, None])
        decode.bias.copy_(mean_3)


MIN_VARIANCE = 1e-8
"""Components that never vary (grey photographs only) are divided by the root of this, not by zero."""


def principal_components(patches_NP: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [P], the `count` leading components [P, count] (sign fixed), and their standard deviations [count]; fp32."""
    x = patches_NP.double()
    mean_P = x.mean(dim=0)
    cov_PP = (x - mean_P).T @ (x - mean_P) / x.shape[0]
    values, vectors = torch.linalg.eigh(cov_PP)
    components_PC = vectors.flip(1)[:, :count]
    strongest_1C = components_PC.abs().argmax(dim=0, keepdim=True)
    components_PC = components_PC * components_PC.gather(0, strongest_1C).sign()
    return mean_P.float(), components_PC.float(), values.flip(0)[:count].clamp(min=MIN_VARIANCE).sqrt().float()
