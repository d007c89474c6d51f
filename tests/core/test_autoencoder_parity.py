"""The KL autoencoder against diffusers' and the host's, on random weights, float32, <= 1e-5."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.kl_autoencoder import KLAutoencoder, KLAutoencoderParams

from .peers import Peers, randomize

TOLERANCE = 1e-5
PARAMS = KLAutoencoderParams(
    in_channels=3,
    out_ch=3,
    ch=32,
    ch_mult=(1, 2, 3, 3),
    num_res_blocks=2,
    z_channels=16,
    scale_factor=0.3611,
    shift_factor=0.1159,
)


@pytest.fixture(scope="module")
def ours() -> KLAutoencoder:
    network = KLAutoencoder(PARAMS)
    randomize(network, seed=11)
    network.decoder.conv_out.weight.mul_(0.5)  # pictures of ordinary contrast
    return network


@pytest.fixture(params=[(32, 32), (40, 24), (8, 56)], ids=str)
def picture(request: pytest.FixtureRequest) -> Tensor:
    height, width = request.param
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height)) * 2 - 1


def same(one: Tensor, other: Tensor) -> None:
    assert one.shape == other.shape
    assert other.abs().mean() > 0.1, "an output this small would make the comparison empty"
    assert (one - other).abs().max().item() <= TOLERANCE


def test_equals_diffusers(peers: Peers, ours: KLAutoencoder, picture: Tensor) -> None:
    z = ours.encode(picture)
    raw = z / PARAMS.scale_factor + PARAMS.shift_factor
    params = asdict(PARAMS) | {"ch_mult": list(PARAMS.ch_mult)}
    answer = peers.ask("diffusers_autoencoder", params=params, state=ours.state_dict(), x=picture, raw=raw)
    same(z, PARAMS.scale_factor * (answer["raw"] - PARAMS.shift_factor))
    same(ours.decode(z), answer["picture"])


def test_equals_the_host(peers: Peers, ours: KLAutoencoder, picture: Tensor) -> None:
    config = {
        "double_z": True,
        "z_channels": PARAMS.z_channels,
        "resolution": 256,
        "in_channels": PARAMS.in_channels,
        "out_ch": PARAMS.out_ch,
        "ch": PARAMS.ch,
        "ch_mult": list(PARAMS.ch_mult),
        "num_res_blocks": PARAMS.num_res_blocks,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    z = ours.encode(picture)
    raw = z / PARAMS.scale_factor + PARAMS.shift_factor
    answer = peers.ask("host_autoencoder", params=config, state=ours.state_dict(), x=picture, raw=raw)
    same(z, PARAMS.scale_factor * (answer["raw"] - PARAMS.shift_factor))
    same(ours.decode(z), answer["picture"])


@pytest.mark.parametrize("shape", [(1, 3, 12, 16), (1, 3, 16, 15), (1, 4, 16, 16), (3, 16, 16), (1, 3, 0, 16)], ids=str)
def test_refuses_pictures_that_do_not_fit(ours: KLAutoencoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(AlloSR2Error, match="expected"):
        ours.encode(torch.zeros(shape))


def test_refuses_latents_that_do_not_fit(ours: KLAutoencoder) -> None:
    with pytest.raises(AlloSR2Error, match=r"expected \(B, 16, h, w\), got \(1, 4, 2, 2\)"):
        ours.decode(torch.zeros(1, 4, 2, 2))


@pytest.mark.parametrize("change", [{"ch": 48}, {"ch_mult": ()}, {"scale_factor": 0.0}, {"z_channels": 0}], ids=str)
def test_refuses_impossible_architectures(change: dict) -> None:
    with pytest.raises(AlloSR2Error):
        KLAutoencoderParams(**(asdict(PARAMS) | change))


def test_full_size_has_the_tensors_of_the_published_file() -> None:
    """FLUX.1: 244 tensors, 83.8 million parameters; names as in the file."""
    with torch.device("meta"):
        network = KLAutoencoder(replace(PARAMS, ch=128, ch_mult=(1, 2, 4, 4)))
    state = network.state_dict()
    assert len(state) == 244
    assert sum(tensor.numel() for tensor in state.values()) == 83_819_683
    for name, shape in {
        "encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.down.2.downsample.conv.bias": (512,),
        "encoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
        "encoder.conv_out.weight": (32, 512, 3, 3),
        "decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "decoder.up.0.block.2.norm2.bias": (128,),
    }.items():
        assert state[name].shape == shape


def test_attention_never_holds_all_scores(ours: KLAutoencoder) -> None:
    """The kernel in blocks takes it; the one left out here holds a number for every pair of cells."""
    x = torch.randn(1, PARAMS.ch * PARAMS.ch_mult[-1], 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = ours.decoder.mid.attn_1(x)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            seen = ours.decoder.mid.attn_1(x)
    assert torch.equal(seen, expected)
