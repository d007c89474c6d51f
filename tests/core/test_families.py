"""A FLUX.1 transformer is told by its parameters' names and shapes, whichever spelling its host has for them."""

from dataclasses import replace

import pytest
import torch

from allosr2_core.adapters.targets import Shape
from allosr2_core.bases.flux1 import flux_architecture
from allosr2_core.bases.registry import FAMILIES, missing_marks, recognise, spellings
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.flux import Flux, FluxParams

PARAMS = FluxParams(
    in_channels=64,
    out_channels=64,
    vec_in_dim=24,
    context_in_dim=40,
    hidden_size=256,
    mlp_ratio=4.0,
    num_heads=8,
    depth=2,
    depth_single_blocks=3,
    axes_dim=(8, 12, 12),
    theta=10_000,
    qkv_bias=True,
    guidance_embed=True,
)
QUERY = "double_blocks.0.img_attn.norm.query_norm"
FOUND = ("vec_in_dim", "context_in_dim", "hidden_size", "mlp_ratio", "num_heads", "depth", "depth_single_blocks")


def flux(gain: str, guidance: bool = True) -> dict[str, Shape]:
    """Names and shapes of a small FLUX.1 whose head norms call their gain so."""
    with torch.device("meta"):
        network = Flux(replace(PARAMS, guidance_embed=guidance))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    return {name.replace("_norm.scale", f"_norm.{gain}"): shape for name, shape in shapes.items()}


def without(shapes: dict[str, Shape], start: str) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if not name.startswith(start)}


@pytest.mark.parametrize("guidance", [True, False])
@pytest.mark.parametrize("gain", ["scale", "weight"])
def test_the_architecture_is_read_in_either_spelling(gain: str, guidance: bool) -> None:
    shapes = flux(gain, guidance)
    assert f"{QUERY}.{gain}" in shapes and recognise(shapes) == "flux"
    expected = {name: getattr(PARAMS, name) for name in FOUND} | {
        "type": "flux",
        "latent_channels": 16,
        "guidance_embed": guidance,
    }
    assert flux_architecture(shapes) == expected


@pytest.mark.parametrize(
    ("start", "names"),
    [
        (QUERY, f"{QUERY}.scale or {QUERY}.weight"),
        ("img_in.", "img_in.weight"),
        ("vector_in.", "vector_in.in_layer.weight"),
        ("txt_in.", "txt_in.weight"),
        ("double_blocks.0.img_mlp.", "double_blocks.0.img_mlp.0.weight"),
        ("double_blocks.0.img_attn.qkv.", "double_blocks.0.img_attn.qkv.weight"),
        ("single_blocks.", "single_blocks.0.linear1.weight"),
    ],
)
def test_a_parameter_that_tells_and_is_not_there_is_named(start: str, names: str) -> None:
    shapes = without(flux("weight"), start)
    message = f"with the parameter {names}; none of its {len(shapes)} parameters has that name"
    with pytest.raises(AlloSR2Error) as refused:
        flux_architecture(shapes)
    assert str(refused.value).endswith(message)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_mark_counts(family: str) -> None:
    marks = FAMILIES[family].marks
    assert recognise(dict.fromkeys(marks, (1, 1))) == family
    for mark in marks:
        others: dict[str, Shape] = {name: (1, 1) for name in marks if name != mark}
        assert recognise(others) is None and missing_marks(family, others) == [mark]


@pytest.mark.parametrize("place", ["", "diffusion_model.", "model."])
def test_only_the_gains_of_head_norms_have_two_names(place: str) -> None:
    gains = (f"{place}{QUERY}.scale", f"{place}{QUERY}.weight")
    assert spellings(gains[0]) == spellings(gains[1]) == gains
    for name in ("img_in.weight", "x_pad_token", "joint_blocks.0.x_block.attn.ln_q.weight", "layers.0.norm1.weight"):
        assert spellings(place + name) == (place + name,)
    assert spellings(f"{place}{QUERY}.bias") == (f"{place}{QUERY}.bias",)
