"""ComfyUI loads the exported branches and weight differences, all of them, and computes the same velocities."""

import copy
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from allosr2_core.adapters import lora
from allosr2_core.adapters.weight_diff import apply_diff, export_diff
from allosr2_core.networks.flux import Flux, FluxConditioning, FluxParams, FluxVelocity
from tests.support.lora_network import PREFIX, fill, tuned_from

from .peers import Peers, randomize

FLUX_TARGETS = [
    r"double_blocks\.\d+\.(img|txt)_(attn\.(qkv|proj)|mlp\.[02]|mod\.lin)",
    r"single_blocks\.\d+\.(linear[12]|modulation\.lin)",
    r"img_in|final_layer\.linear",
]
PARAMS = FluxParams(
    in_channels=64,
    out_channels=64,
    vec_in_dim=24,
    context_in_dim=40,
    hidden_size=64,
    mlp_ratio=4.0,
    num_heads=2,
    depth=1,
    depth_single_blocks=2,
    axes_dim=(8, 12, 12),
    theta=10_000,
    qkv_bias=True,
    guidance_embed=False,
)


def flux() -> Flux:
    network = Flux(PARAMS)
    randomize(network, seed=3)
    return network


def host_params() -> dict[str, Any]:
    sizes = {"in_channels": 16, "out_channels": 16, "patch_size": 2, "axes_dim": list(PARAMS.axes_dim)}
    return asdict(PARAMS) | sizes | {"image_model": "flux"}


def inputs() -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(6)
    return {
        "x": torch.randn(2, 16, 6, 5, generator=generator),
        "timestep": torch.tensor([0.3, 0.8]),
        "context": torch.randn(2, 4, 40, generator=generator),
        "y": torch.randn(2, 24, generator=generator),
        "guidance": None,
    }


def velocity(network: Flux) -> Tensor:
    given = inputs()
    cond = FluxConditioning(context_BLC=given["context"], pooled_BV=given["y"], guidance_B=None)
    return FluxVelocity(network)(given["x"], given["timestep"], cond)


def in_host(peers: Peers, state: dict[str, Tensor], tensors: dict[str, Tensor], strength: float) -> dict[str, Any]:
    logged = peers.log().count("lora key not loaded")
    answer = peers.ask(
        "host_adapter", params=host_params(), state=state, tensors=tensors, strength=strength, inputs=inputs()
    )
    assert peers.log().count("lora key not loaded") == logged, "the host left keys out"
    return answer


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_the_host_takes_every_exported_branch(peers: Peers, strength: float) -> None:
    network = flux()
    state, base = copy.deepcopy(network.state_dict()), velocity(network)
    names = lora.inject(network, FLUX_TARGETS, rank=4, alpha=2.0)
    fill(network)
    lora.set_scale(network, strength)
    answer = in_host(peers, state, lora.export_lora(network, PREFIX), strength)
    assert answer["patched"] == sorted(f"{PREFIX}{name}.weight" for name in names)
    ours = velocity(network)
    assert (ours - base).abs().mean() > 0.05
    assert (ours - answer["v"]).abs().max().item() <= 2e-5


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_the_host_takes_every_exported_difference(peers: Peers, strength: float) -> None:
    network = flux()
    base, tensors = velocity(network), export_diff(network, tuned_from(network, 0.2), PREFIX)
    answer = in_host(peers, network.state_dict(), tensors, strength)
    assert answer["patched"] == sorted(PREFIX + name for name, _ in network.named_parameters())
    apply_diff(network, tensors, PREFIX, strength)
    ours = velocity(network)
    assert (ours - base).abs().mean() > 0.05
    assert (ours - answer["v"]).abs().max().item() <= 2e-5
