"""Decoding with FLUX.1's autoencoder: in one pass, exactly in strips at two budgets, and in the host's tiles.

    exact         budget for the last upsampled map and a block's hidden one: every convolution made once
    exact-lowmem  budget for half of that: the upsampled map and hidden ones are made again instead of kept
    host tiled    the host's VAEDecodeTiled with its default settings (three layouts of tiles, averaged)

Random weights, one after the other in one process. The latent grows brighter from left to right, as skies do:
tiles see other statistics than the whole.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from allosr2_core.bases.registry import BASES
from allosr2_core.networks.autoencoders import autoencoder_params, build_autoencoder
from allosr2_core.networks.kl_autoencoder import KLAutoencoder
from allosr2_core.tiling.kl_strips import streamed_decode
from train.loop.precision import bf16_is_native

from .host import import_host
from .measure import Row, max_difference, with_peak

SIDES, QUICK_SIDES = (512, 1024, 2048), (256,)
HOST_LARGEST = 1024
"""px; above this the host's tiles, which take three times as long as one pass, are left out."""
WHOLE, EXACT, LOWMEM, HOST = "one pass", "exact", "exact-lowmem", "host tiled"
FP32 = "one pass in fp32"
BUDGETS = {EXACT: 3.1, LOWMEM: 1.55}
"""Bytes for feature maps, in 128-channel maps of the highest resolution; the upsampled one has 256."""
HOST_TILE, HOST_OVERLAP = 512, 64
"""Defaults of VAEDecodeTiled, px."""
WARM_UP = 64
"""Side of a first picture, px: it sets the scale of the output."""
SPREAD = 0.3
"""Standard deviation of the pixels, so that few of them leave -1 to 1, where the host cuts them."""
FULL_SCALE = 2.0
"""Pixels are -1 to 1."""


def run(quick: bool, sizes: Sequence[int] = ()) -> Iterator[Row]:
    """For each side (px of the square picture) the four ways in fp32, then, where the processor multiplies it, in bf16.

    `ratio` is of seconds to those of `against`, and `max_abs_diff` is from its picture.
    """
    autoencoder = _autoencoder()
    host_tiled = _host(autoencoder)
    rough = copy.deepcopy(autoencoder).bfloat16() if bf16_is_native("cpu") else None
    for side in sizes or (QUICK_SIDES if quick else SIDES):
        z, size = _latent(autoencoder, side), f"{side} px"
        cases = _cases(autoencoder, z)
        if side <= HOST_LARGEST:
            cases[HOST] = lambda z=z: host_tiled(z)
        exact = yield from _rows(cases, size)
        if rough is not None:
            yield from _rows(_cases(rough, z.bfloat16()), f"{size}, bf16", exact)


def _cases(autoencoder: KLAutoencoder, z: Tensor) -> dict[str, Callable[[], Tensor]]:
    one_map = float(
        z[0, 0].numel()
        * autoencoder.downscale**2
        * autoencoder.params.ch
        * autoencoder.params.ch_mult[0]
        * z.element_size()
    )
    return {
        WHOLE: lambda: autoencoder.decoder(z),
        EXACT: lambda: streamed_decode(autoencoder.decoder, z, BUDGETS[EXACT] * one_map),
        LOWMEM: lambda: streamed_decode(autoencoder.decoder, z, BUDGETS[LOWMEM] * one_map),
    }


def _rows(
    cases: dict[str, Callable[[], Tensor]], size: str, fp32: Tensor | None = None
) -> Generator[Row, None, Tensor]:
    """The rows of one size and type; returns the picture of one pass, whose difference from `fp32` is its rounding."""
    reference, whole_mb, whole_seconds = with_peak(cases[WHOLE])
    rounding = None if fp32 is None else _apart(reference, fp32)
    yield Row("decode", WHOLE, size, whole_seconds, whole_mb, rounding, against=None if fp32 is None else FP32)
    for name in list(cases)[1:]:
        result, peak_mb, seconds = with_peak(cases[name])
        figures = {"memory_ratio": peak_mb / whole_mb}
        if fp32 is not None:
            figures["from_fp32"] = _apart(result, fp32)
        apart = _apart(result, reference)
        yield Row("decode", name, size, seconds, peak_mb, apart, seconds / whole_seconds, WHOLE, figures)
    return reference


def _apart(result: Tensor, reference: Tensor) -> float:
    return max_difference(result.clamp(-1.0, 1.0), reference.clamp(-1.0, 1.0), FULL_SCALE)


def _latent(autoencoder: KLAutoencoder, side: int) -> Tensor:
    """Raw noise on a ramp, [1, C, h, w]."""
    cells = side // autoencoder.downscale
    noise = torch.randn(1, autoencoder.params.z_channels, cells, cells, generator=torch.Generator().manual_seed(0))
    return noise + torch.linspace(-2.0, 2.0, cells)


def _autoencoder() -> KLAutoencoder:
    """FLUX.1's autoencoder with random weights whose pictures fill the range."""
    torch.manual_seed(0)
    autoencoder = build_autoencoder(autoencoder_params(BASES["flux1-dev"].autoencoder))
    assert isinstance(autoencoder, KLAutoencoder)  # noqa: S101
    autoencoder = autoencoder.eval().requires_grad_(False)
    with torch.inference_mode():
        pixels, last = autoencoder.decoder(_latent(autoencoder, WARM_UP)), autoencoder.decoder.conv_out
    gain = SPREAD / float(pixels.std())
    last.weight.mul_(gain)
    last.bias.sub_(pixels.mean(dim=(0, 2, 3))).mul_(gain)
    return autoencoder


def _host(autoencoder: KLAutoencoder) -> Callable[[Tensor], Tensor]:
    """The host's VAE with the same weights, decoding in its tiles; pixels in -1..1."""
    import_host()
    import comfy.sd

    vae: Any = comfy.sd.VAE(sd={name: value.clone() for name, value in autoencoder.state_dict().items()})

    def decode(z: Tensor) -> Tensor:
        down = vae.spacial_compression_decode()
        pixels = vae.decode_tiled(z, tile_x=HOST_TILE // down, tile_y=HOST_TILE // down, overlap=HOST_OVERLAP // down)
        return pixels.movedim(-1, 1) * 2.0 - 1.0

    return decode
