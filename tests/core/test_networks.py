"""One protocol for both kinds of velocity network, built strictly from what a checkpoint says."""

from typing import Any

import pytest
import torch

from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.flux import FluxConditioning, NullFlux
from allosr2_core.networks.registry import NETWORKS, build_network
from allosr2_core.networks.unet import VelocityUNet
from tests.support.tiny_flux import TINY_FLUX

UNET: dict[str, Any] = {"type": "unet", "latent_channels": 4, "channels": [4, 8], "blocks": [1, 1], "time_dim": 8}
FLUX: dict[str, Any] = {"type": "flux", "latent_channels": 4, **TINY_FLUX}
SPECS = {"unet": UNET, "flux": FLUX}


def shaken(spec: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network(spec).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def test_every_named_network_is_covered_here() -> None:
    assert set(SPECS) == set(NETWORKS)
    assert isinstance(build_network(UNET), VelocityUNet)
    assert isinstance(build_network(FLUX), NullFlux)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 6)])
def test_the_protocol(kind: str, size: tuple[int, int]) -> None:
    network, z = shaken(SPECS[kind]), torch.randn(2, 4, *size)
    v = network(z, torch.tensor([0.2, 0.7]))
    assert v.shape == z.shape and v.dtype == z.dtype
    assert bool(torch.isfinite(v).all())
    torch.testing.assert_close(network(z, torch.tensor([0.2])), network(z, torch.tensor([0.2, 0.2])))
    torch.testing.assert_close(network(z[1:], torch.tensor([0.7])), v[1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SPECS)
def test_the_sign_of_time_matters(kind: str) -> None:
    network, z = shaken(SPECS[kind]), torch.randn(1, 4, 6, 6)
    assert float((network(z, torch.tensor([0.3])) - network(z, torch.tensor([-0.3]))).abs().max()) > 1e-4


def test_a_flux_network_takes_a_conditioning_in_the_place_of_its_null_token() -> None:
    network, z, t = shaken(FLUX), torch.randn(1, 4, 6, 6), torch.tensor([0.3])
    null = FluxConditioning(network.null_context, network.null_pooled, None)
    other = FluxConditioning(torch.ones(1, 3, 8), torch.ones(1, 8), None)
    assert torch.equal(network(z, t, null), network(z, t))
    assert not torch.equal(network(z, t, other), network(z, t))


@pytest.mark.parametrize("kind", SPECS)
def test_a_spec_is_left_as_it_was(kind: str) -> None:
    before = dict(SPECS[kind])
    build_network(SPECS[kind])
    assert SPECS[kind] == before


# ---- refusals ----


@pytest.mark.parametrize("kind", ["dit", None, 5, ["unet"]])
def test_unknown_types_are_refused(kind: object) -> None:
    with pytest.raises(AlloSR2Error, match="unet"):
        build_network({**UNET, "type": kind})


@pytest.mark.parametrize("kind", SPECS)
def test_each_key_must_be_there_and_no_other(kind: str) -> None:
    for key in SPECS[kind]:
        with pytest.raises(AlloSR2Error, match=key if key != "type" else "expected type"):
            build_network({k: v for k, v in SPECS[kind].items() if k != key})
    with pytest.raises(AlloSR2Error, match="unknown.*'dropout'"):
        build_network({**SPECS[kind], "dropout": 0.1})


@pytest.mark.parametrize("key", ["in_channels", "out_channels"])
def test_a_flux_network_gets_its_token_width_from_the_latents_alone(key: str) -> None:
    with pytest.raises(AlloSR2Error, match=f"unknown.*'{key}'"):
        build_network({**FLUX, key: 999})


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("unet", "channels", [4.5, 8]),
        ("unet", "channels", "48"),
        ("unet", "channels", 4),
        ("unet", "channels", [4, None]),
        ("unet", "blocks", [True, 1]),
        ("unet", "time_dim", 8.0),
        ("unet", "time_dim", "8"),
        ("unet", "latent_channels", None),
        ("unet", "latent_channels", -4),
        ("flux", "latent_channels", "4"),
        ("flux", "latent_channels", 0),
        ("flux", "hidden_size", 16.5),
        ("flux", "hidden_size", 15),
        ("flux", "axes_dim", 8),
        ("flux", "axes_dim", [2, 2, 2]),
        ("flux", "mlp_ratio", "2"),
        ("flux", "qkv_bias", 1),
        ("flux", "depth", -1),
    ],
)
def test_ill_typed_and_impossible_values_are_refused_by_name(kind: str, key: str, value: object) -> None:
    with pytest.raises(AlloSR2Error, match="network"):
        build_network({**SPECS[kind], key: value})


@pytest.mark.parametrize("spec", [None, 5, "unet", ["unet"]])
def test_a_spec_that_is_no_mapping_is_refused(spec: object) -> None:
    with pytest.raises(AlloSR2Error, match="network"):
        build_network(spec)  # type: ignore[arg-type]
