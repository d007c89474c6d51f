"""FLUX.1 by Black Forest Labs: dev and schnell. Its transformer is `networks/flux.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adapters.targets import Shape
from ..errors import AlloSR2Error
from .registry import Base, Family, register, spellings

TYPE = "flux"
GAINS = tuple((f"{norm}_norm.scale", f"{norm}_norm.weight") for norm in ("query", "key"))
"""The gain of a head norm is `scale` in the files, the core and older hosts, `weight` in newer hosts."""

_FLUX1 = {
    "type": TYPE,
    "latent_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 19,
    "depth_single_blocks": 38,
    "axes_dim": [16, 56, 56],
    "theta": 10_000,
    "qkv_bias": True,
}
_FLUX1_VAE = {
    "type": "kl",
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "z_channels": 16,
    "scale_factor": 0.3611,
    "shift_factor": 0.1159,
}


def flux_architecture(shapes: Mapping[str, Shape]) -> dict[str, object]:
    """What the shapes of a FLUX.1 transformer's parameters tell of its architecture, as a checkpoint states it.

    Raises AlloSR2Error when a parameter that tells is not there, under any name it is known by.
    """
    hidden, tokens = _shape(shapes, "img_in.weight")
    (head,) = _shape(shapes, "double_blocks.0.img_attn.norm.query_norm.scale")
    return {
        "type": TYPE,
        "latent_channels": tokens // 4,
        "vec_in_dim": _shape(shapes, "vector_in.in_layer.weight")[1],
        "context_in_dim": _shape(shapes, "txt_in.weight")[1],
        "hidden_size": hidden,
        "mlp_ratio": _shape(shapes, "double_blocks.0.img_mlp.0.weight")[0] / hidden,
        "num_heads": hidden // head,
        "depth": _count(shapes, "double_blocks", "img_attn.qkv.weight"),
        "depth_single_blocks": _count(shapes, "single_blocks", "linear1.weight"),
        "guidance_embed": any(name.startswith("guidance_in.") for name in shapes),
    }


def _shape(shapes: Mapping[str, Shape], name: str) -> Shape:
    for spelling in spellings(name):
        if spelling in shapes:
            return shapes[spelling]
    raise AlloSR2Error(
        f"expected a FLUX.1 transformer with the parameter {' or '.join(spellings(name))}; "
        f"none of its {len(shapes)} parameters has that name"
    )


def _count(shapes: Mapping[str, Shape], blocks: str, layer: str) -> int:
    """How many blocks there are; every FLUX.1 has some, and all have the layer."""
    _shape(shapes, f"{blocks}.0.{layer}")
    return len({name.split(".")[1] for name in shapes if name.startswith(blocks + ".")})


def describe(network: Mapping[str, Any]) -> str:
    """A name for a FLUX.1 transformer of another size."""
    double, single = network.get("depth"), network.get("depth_single_blocks")
    guidance = "with" if network.get("guidance_embed") else "without"
    return f"flux-{network.get('hidden_size')}-{double}+{single}-{guidance}-guidance"


register(
    TYPE,
    Family(
        title="FLUX.1",
        latent_channels=16,
        latent_downscale=8,
        latent_scale=0.3611,
        latent_shift=0.1159,
        token_cells=2,
        pooled=True,
        guidance=True,
        marks=("double_blocks.0.img_mod.lin.weight", "vector_in.in_layer.weight", "img_in.weight"),
        spellings=GAINS,
        architecture=flux_architecture,
        describe=describe,
        members={
            "flux1-dev": Base(
                title="FLUX.1-dev",
                network=_FLUX1 | {"guidance_embed": True, "guidance": 1.0},
                autoencoder=_FLUX1_VAE,
                license="FLUX.1 [dev] Non-Commercial License",
            ),
            "flux1-schnell": Base(
                title="FLUX.1-schnell",
                network=_FLUX1 | {"guidance_embed": False, "guidance": None},
                autoencoder=_FLUX1_VAE,
                license="Apache-2.0",
            ),
        },
    ),
)
