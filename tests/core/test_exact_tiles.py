"""Halo-exact tiles: the tiled result is the untiled one, for any local network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allosr2_core.errors import AlloSR2Error
from allosr2_core.tiling.exact import exact_tile_count
from tests.support.exact_tiled import exact_tiled


def conv(channels_in: int, channels_out: int, padding_mode: str) -> nn.Conv2d:
    layer = nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode=padding_mode)
    nn.init.orthogonal_(layer.weight)
    return layer


def decoder(seed: int, padding_mode: str = "zeros") -> nn.Module:
    """x4: a conv at the latent size, two upsamplings each followed by a conv. An output pixel sees 1 + (1 + 1/2) + 1/4
    latent cells to each side plus the rounding of nearest upsampling: less than 4."""
    torch.manual_seed(seed)
    return nn.Sequential(
        conv(5, 8, padding_mode),
        nn.SiLU(),
        nn.Upsample(scale_factor=2, mode="nearest"),
        conv(8, 8, padding_mode),
        nn.SiLU(),
        nn.ConvTranspose2d(8, 6, 2, stride=2),
        conv(6, 3, padding_mode),
    ).eval()


def encoder(seed: int) -> nn.Module:
    """/4 with a radius below 2 latent cells."""
    torch.manual_seed(seed)
    return nn.Sequential(conv(3, 6, "zeros"), nn.SiLU(), nn.Conv2d(6, 8, 4, stride=4), conv(8, 5, "zeros")).eval()


sizes = st.integers(1, 19)


@settings(max_examples=50)
@given(height=sizes, width=sizes, tile=st.integers(1, 12), seed=st.integers(0, 20), batch=st.integers(1, 2))
@torch.no_grad()
def test_tiled_decode_equals_untiled(height: int, width: int, tile: int, seed: int, batch: int) -> None:
    network = decoder(seed)
    z = torch.randn(batch, 5, height, width)
    tiled = exact_tiled(network, z, tile=tile, radius=4, scale=4)
    whole = network(z)
    assert tiled.shape == whole.shape
    assert float((tiled - whole).abs().max()) <= 1e-6 * max(1.0, float(whole.abs().max()))


@settings(max_examples=50)
@given(height=sizes, width=sizes, tile=st.integers(1, 12), seed=st.integers(0, 20))
@torch.no_grad()
def test_tiled_encode_equals_untiled(height: int, width: int, tile: int, seed: int) -> None:
    network = encoder(seed)
    x = torch.rand(1, 3, 4 * height, 4 * width) * 2 - 1
    tiled = exact_tiled(network, x, tile=tile, radius=2, scale=1 / 4)
    whole = network(x)
    assert tiled.shape == whole.shape
    assert float((tiled - whole).abs().max()) <= 1e-6 * max(1.0, float(whole.abs().max()))


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate"])
@torch.no_grad()
def test_the_networks_own_padding_acts_at_the_border(padding_mode: str) -> None:
    network = decoder(3, padding_mode)
    z = torch.randn(1, 5, 13, 9)
    assert float((exact_tiled(network, z, 4, 4, 4) - network(z)).abs().max()) <= 1e-6


@torch.no_grad()
def test_too_small_a_radius_shows() -> None:
    """The test above can fail: without context the tile borders differ."""
    network = decoder(0)
    z = torch.randn(1, 5, 12, 12)
    assert float((exact_tiled(network, z, 4, 0, 4) - network(z)).abs().max()) > 1e-3


@torch.no_grad()
def test_equal_scale_and_dtype() -> None:
    network = conv(5, 2, "zeros").double()
    z = torch.randn(2, 5, 7, 11, dtype=torch.float64)
    tiled = exact_tiled(network, z, 3, 1, 1)
    assert tiled.dtype == torch.float64
    assert float((tiled - network(z)).abs().max()) <= 1e-12


def test_tick_per_tile() -> None:
    calls = []
    exact_tiled(lambda t: t, torch.rand(2, 1, 7, 9), 4, 1, 1, tick=lambda: calls.append(1))
    assert len(calls) == 2 * exact_tile_count(7, 9, 4) == 2 * 2 * 3


@pytest.mark.parametrize(
    ("shape", "tile", "radius", "scale", "reason"),
    [
        ((1, 3, 8, 8), 0, 1, 1, "tile >= 1"),
        ((1, 3, 8, 8), 4, -1, 1, "radius >= 0"),
        ((1, 3, 8, 8), 4, 1, 2.5, "whole scale"),
        ((1, 3, 8, 8), 4, 1, 0, "above 0"),
        ((1, 3, 8, 8), 4, 1, 2, "cells from the network"),
    ],
)
def test_impossible_requests_are_refused(
    shape: tuple[int, ...], tile: int, radius: int, scale: float, reason: str
) -> None:
    with pytest.raises(AlloSR2Error, match=reason):
        exact_tiled(lambda t: t, torch.rand(shape), tile, radius, scale)
