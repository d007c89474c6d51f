"""Strips of rows with the statistics of the whole: equal to one pass, whatever is stored and whatever is made again."""

import pytest
import torch

from allosr2_core.autoencoder import Autoencoder, AutoencoderParams
from allosr2_core.errors import AlloSR2Error
from allosr2_core.streamed_kl import Moments, streamed_decode, streamed_encode

from .peers import randomize

PARAMS = AutoencoderParams(
    in_channels=3,
    out_ch=3,
    ch=32,
    ch_mult=(1, 2, 4),
    num_res_blocks=2,
    z_channels=4,
    scale_factor=0.4,
    shift_factor=0.1,
)
BUDGETS = (1e9, 6e5, 3e5, 1.0)


@pytest.fixture(scope="module")
def codec() -> Autoencoder:
    network = Autoencoder(PARAMS)
    randomize(network, seed=2)
    return network


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (20, 14), (33, 6)])
def test_a_decode_in_strips_is_the_whole_one(codec: Autoencoder, size: tuple[int, int], budget: float) -> None:
    raw = torch.randn(1, 4, *size)
    ticks: list[int] = []
    with torch.no_grad():
        whole, found = codec.decoder(raw), streamed_decode(codec.decoder, raw, budget, lambda: ticks.append(1))
    assert found.shape == whole.shape == (1, 3, 4 * size[0], 4 * size[1])
    assert float((found - whole).abs().max()) <= 1e-5 * float(whole.abs().max())
    assert len(ticks) >= 10


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [(4, 4), (12, 28), (100, 36)])
def test_an_encode_in_strips_is_the_whole_one(codec: Autoencoder, size: tuple[int, int], budget: float) -> None:
    x = torch.rand(1, 3, *size)
    with torch.no_grad():
        whole, found = codec.encoder(x), streamed_encode(codec.encoder, x, budget)
    assert found.shape == whole.shape
    assert float((found - whole).abs().max()) <= 1e-5 * float(whole.abs().max())


def test_plain_tiles_are_not(codec: Autoencoder) -> None:
    """What this is for: a tile with as much context as convolutions need is another picture all the same."""
    raw = torch.randn(1, 4, 8, 64)
    with torch.no_grad():
        whole, tile = codec.decoder(raw), codec.decoder(raw[..., :40])
    assert float((whole[..., :32] - tile[..., :32]).abs().max()) > 1e-2 * float(whole.abs().max())


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    x = torch.randn(1, 8, 30, 5) * 3 + 100
    norm = torch.nn.GroupNorm(2, 8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    found = Moments(2)
    for rows in x.split([1, 20, 9], dim=2):
        found.add(rows)
    expected = torch.nn.functional.silu(norm(x))
    assert torch.allclose(found.activation(norm)(x), expected, atol=1e-4)


def test_what_it_cannot_stream_is_refused(codec: Autoencoder) -> None:
    with pytest.raises(AlloSR2Error, match="attention in the middle only; got Linear"):
        streamed_decode(torch.nn.Linear(1, 1), torch.randn(1, 4, 2, 2), 1.0)
    with pytest.raises(AlloSR2Error, match=r"expected one item .*; got \(2, 4, 2, 2\)"):
        streamed_decode(codec.decoder, torch.randn(2, 4, 2, 2), 1.0)
