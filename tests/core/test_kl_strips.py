"""Strips of rows with the statistics of the whole: equal to one pass, whatever is stored and whatever is made again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.kl_autoencoder import KLAutoencoder, KLAutoencoderParams
from allosr2_core.tiling.kl_rows import Doubled, Stored
from allosr2_core.tiling.kl_strips import Moments, streamed_decode, streamed_encode

from .peers import randomize

PARAMS = KLAutoencoderParams(
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
def autoencoder() -> KLAutoencoder:
    network = KLAutoencoder(PARAMS)
    randomize(network, seed=2)
    return network


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (20, 14), (33, 6)])
def test_a_decode_in_strips_is_the_whole_one(autoencoder: KLAutoencoder, size: tuple[int, int], budget: float) -> None:
    raw = torch.randn(1, 4, *size)
    ticks: list[int] = []
    with torch.no_grad():
        whole, found = (
            autoencoder.decoder(raw),
            streamed_decode(autoencoder.decoder, raw, budget, lambda: ticks.append(1)),
        )
    assert found.shape == whole.shape == (1, 3, 4 * size[0], 4 * size[1])
    assert float((found - whole).abs().max()) <= 1e-5 * float(whole.abs().max())
    assert len(ticks) >= 10


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [(4, 4), (12, 28), (100, 36)])
def test_an_encode_in_strips_is_the_whole_one(autoencoder: KLAutoencoder, size: tuple[int, int], budget: float) -> None:
    x = torch.rand(1, 3, *size)
    with torch.no_grad():
        whole, found = autoencoder.encoder(x), streamed_encode(autoencoder.encoder, x, budget)
    assert found.shape == whole.shape
    assert float((found - whole).abs().max()) <= 1e-5 * float(whole.abs().max())


@pytest.mark.parametrize("budget", BUDGETS)
def test_bf16_rounds_no_more_than_one_pass(budget: float) -> None:
    network = KLAutoencoder(PARAMS)
    randomize(network, seed=2)
    raw = torch.randn(1, 4, 12, 20, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        truth = network.decoder(raw)
        network.bfloat16()
        whole, found = network.decoder(raw.bfloat16()), streamed_decode(network.decoder, raw.bfloat16(), budget)
    assert found.dtype == torch.bfloat16
    (own, once) = ((x.float() - truth).abs() for x in (found, whole))
    assert float(own.square().mean().sqrt()) <= 1.05 * float(once.square().mean().sqrt())
    assert float(own.max()) <= 1.5 * float(once.max())  # the largest of many roundings scatters


@settings(max_examples=40)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 6)), bias=st.booleans(), patched=st.booleans(), data=st.data())
def test_a_convolution_of_doubled_pixels(size: tuple[int, int], bias: bool, patched: bool, data: st.DataObject) -> None:
    """Summed kernels and the layer itself give the rows of the whole, wherever a strip begins and ends."""
    conv = torch.nn.Conv2d(3, 5, 3, padding=1, bias=bias)
    conv.weight_function = [torch.neg] if patched else []  # type: ignore[assignment]
    x = torch.randn(1, 3, *size)
    first = data.draw(st.integers(0, 2 * size[0] - 1))
    last = data.draw(st.integers(first + 1, 2 * size[0]))
    with torch.no_grad():
        whole = conv(torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        doubled = Doubled(Stored(x), conv)
        assert (doubled.summed is None) == patched
        torch.testing.assert_close(doubled.rows(first, last), whole[:, :, first:last], atol=1e-5, rtol=1e-5)


def test_plain_tiles_are_not(autoencoder: KLAutoencoder) -> None:
    """What this is for: a tile with as much context as convolutions need is another picture all the same."""
    raw = torch.randn(1, 4, 8, 64)
    with torch.no_grad():
        whole, tile = autoencoder.decoder(raw), autoencoder.decoder(raw[..., :40])
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


def test_what_it_cannot_stream_is_refused(autoencoder: KLAutoencoder) -> None:
    with pytest.raises(AlloSR2Error, match="attention in the middle only; got Linear"):
        streamed_decode(torch.nn.Linear(1, 1), torch.randn(1, 4, 2, 2), 1.0)
    with pytest.raises(AlloSR2Error, match=r"expected one item .*; got \(2, 4, 2, 2\)"):
        streamed_decode(autoencoder.decoder, torch.randn(2, 4, 2, 2), 1.0)
