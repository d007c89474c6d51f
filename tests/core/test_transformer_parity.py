"""The transformer against diffusers' and the host's, on random weights, float32, <= 1e-5."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from allosr2_core.networks.flux import Flux, FluxConditioning, FluxParams, FluxVelocity, pack, token_ids

from .peers import Peers, randomize

TOLERANCE = 1e-5
DEV = FluxParams(
    in_channels=64,
    out_channels=64,
    vec_in_dim=24,
    context_in_dim=40,
    hidden_size=256,
    mlp_ratio=4.0,
    num_heads=2,
    depth=2,
    depth_single_blocks=3,
    axes_dim=(16, 56, 56),
    theta=10_000,
    qkv_bias=True,
    guidance_embed=True,
)
SCHNELL = replace(DEV, guidance_embed=False)
SIZES = [(8, 8), (7, 10), (5, 3), (1, 6)]


def plain(params: FluxParams) -> dict[str, Any]:
    return asdict(params) | {"axes_dim": list(params.axes_dim)}


def host_params(params: FluxParams) -> dict[str, Any]:
    """The host counts channels per latent pixel and patches itself."""
    sizes = {"in_channels": params.in_channels // 4, "out_channels": params.out_channels // 4, "patch_size": 2}
    return plain(params) | sizes


def network(params: FluxParams) -> Flux:
    flux = Flux(params)
    randomize(flux, seed=7)
    return flux


def inputs(params: FluxParams, height: int, width: int, batch: int = 3) -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return {
        "x": torch.randn(batch, params.in_channels // 4, height, width, generator=generator),
        "timestep": torch.tensor([0.23, 1.0, 0.0, 0.71, 0.5])[:batch],
        "context": torch.randn(batch, 9, params.context_in_dim, generator=generator),
        "y": torch.randn(batch, params.vec_in_dim, generator=generator),
        "guidance": torch.tensor([3.5, 1.0, 0.0, 4.0, 30.0])[:batch] if params.guidance_embed else None,
    }


def velocity(flux: Flux, given: dict[str, Tensor | None]) -> Tensor:
    cond = FluxConditioning(context_BLC=given["context"], pooled_BV=given["y"], guidance_B=given["guidance"])
    return FluxVelocity(flux)(given["x"], given["timestep"], cond)


def same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.abs().mean() > 0.1, "an output this small would make the comparison empty"
    assert (ours - theirs).abs().max().item() <= TOLERANCE


@pytest.mark.parametrize("params", [DEV, SCHNELL], ids=["guidance", "no-guidance"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_host(peers: Peers, params: FluxParams, size: tuple[int, int]) -> None:
    flux, given = network(params), inputs(params, *size)
    answer = peers.ask("host_flux", params=host_params(params), state=flux.state_dict(), inputs=given)
    same(velocity(flux, given), answer["v"])


def test_equals_the_host_at_negative_time(peers: Peers) -> None:
    flux, given = network(DEV), inputs(DEV, 6, 4)
    given["timestep"] = -given["timestep"]
    answer = peers.ask("host_flux", params=host_params(DEV), state=flux.state_dict(), inputs=given)
    same(velocity(flux, given), answer["v"])


def test_equals_the_host_without_qkv_bias_and_with_other_axes(peers: Peers) -> None:
    params = replace(DEV, qkv_bias=False, axes_dim=(4, 62, 62), mlp_ratio=2.5, depth=1, depth_single_blocks=1)
    flux, given = network(params), inputs(params, 9, 5, batch=2)
    answer = peers.ask("host_flux", params=host_params(params), state=flux.state_dict(), inputs=given)
    same(velocity(flux, given), answer["v"])


@pytest.mark.parametrize("params", [DEV, SCHNELL], ids=["guidance", "no-guidance"])
@pytest.mark.parametrize("size", [(8, 8), (6, 10), (5, 3)], ids=str)
def test_equals_diffusers(peers: Peers, params: FluxParams, size: tuple[int, int]) -> None:
    flux, given = network(params), inputs(params, *size)
    tokens, rows, columns = pack(given["x"])
    ids = token_ids(tokens.shape[0], rows, columns, 3, tokens.device)
    text_ids = torch.zeros(given["context"].shape[1], 3)
    renamed = {
        "hidden_states": tokens,
        "encoder_hidden_states": given["context"],
        "pooled_projections": given["y"],
        "timestep": given["timestep"],
        "img_ids": ids[0],
        "txt_ids": text_ids,
        "guidance": given["guidance"],
    }
    answer = peers.ask("diffusers_flux", params=plain(params), state=flux.state_dict(), inputs=renamed)
    ours = flux(
        img_BLF=tokens,
        img_ids_BLA=ids,
        txt_BLC=given["context"],
        txt_ids_BLA=text_ids.expand(tokens.shape[0], -1, -1),
        timesteps_B=given["timestep"],
        y_BV=given["y"],
        guidance_B=given["guidance"],
    )
    same(ours, answer["v"])


def test_state_dict_names_are_those_of_the_files() -> None:
    names = set(network(replace(DEV, depth=1, depth_single_blocks=1)).state_dict())
    double = {
        f"double_blocks.0.{stream}_{part}"
        for stream in ("img", "txt")
        for part in (
            *(f"{layer}.{kind}" for layer in ("mod.lin", "attn.qkv", "attn.proj") for kind in ("weight", "bias")),
            *(f"mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")),
            *(f"attn.norm.{side}_norm.scale" for side in ("query", "key")),
        )
    }
    single = {f"single_blocks.0.norm.{side}_norm.scale" for side in ("query", "key")} | {
        f"single_blocks.0.{layer}.{kind}"
        for layer in ("linear1", "linear2", "modulation.lin")
        for kind in ("weight", "bias")
    }
    ends = {
        f"{layer}.{kind}"
        for layer in ("img_in", "txt_in", "final_layer.linear", "final_layer.adaLN_modulation.1")
        + tuple(f"{side}_in.{part}_layer" for side in ("time", "vector", "guidance") for part in ("in", "out"))
        for kind in ("weight", "bias")
    }
    assert names == double | single | ends


def test_full_size_has_the_tensors_of_the_published_file() -> None:
    """FLUX.1-dev: 780 tensors, 11.9 billion parameters."""
    params = replace(
        DEV, vec_in_dim=768, context_in_dim=4096, hidden_size=3072, num_heads=24, depth=19, depth_single_blocks=38
    )
    with torch.device("meta"):
        state = Flux(params).state_dict()
    assert len(state) == 780
    assert sum(tensor.numel() for tensor in state.values()) == 11_901_408_320
    assert state["single_blocks.37.linear1.weight"].shape == (21_504, 3072)
