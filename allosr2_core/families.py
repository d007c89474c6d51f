"""The flow model families an adapter can be for: what their latents are, and how a transformer of theirs is recognised.

The core builds and trains FLUX.1. The others run on a MODEL the host has loaded; a trainer for one of them needs its
transformer behind `networks.build_network`, under the type's name here, and its base in `bases.BASES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """Models that share one architecture and one latent space. All are flows: v = e - z_0, x_0 = z_t - t v."""

    title: str
    latent_channels: int
    latent_downscale: int
    """Pixels along one side of a latent cell."""
    latent_scale: float
    latent_shift: float
    """scaled latent = (raw - shift) * scale."""
    token_cells: int
    """Latent cells along one side of a token."""
    pooled: bool
    """Whether the transformer takes a pooled text vector besides the text's tokens."""
    guidance: bool
    """Whether it has members that take a guidance strength (FLUX.1-dev, FLUX.2-dev; not schnell, not klein)."""
    in_core: bool
    """Whether `networks.build_network` knows it."""
    marks: tuple[str, ...]
    """Parameters that together only this family's transformer has."""


FAMILIES: dict[str, Family] = {
    "flux": Family(
        title="FLUX.1",
        latent_channels=16,
        latent_downscale=8,
        latent_scale=0.3611,
        latent_shift=0.1159,
        token_cells=2,
        pooled=True,
        guidance=True,
        in_core=True,
        marks=("double_blocks.0.img_mod.lin.weight", "vector_in.in_layer.weight", "img_in.weight"),
    ),
    "z-image": Family(
        title="Z-Image",
        latent_channels=16,
        latent_downscale=8,
        latent_scale=0.3611,
        latent_shift=0.1159,
        token_cells=2,
        pooled=False,
        guidance=False,
        in_core=False,
        marks=("cap_embedder.1.weight", "x_pad_token", "cap_pad_token"),
    ),
    "flux2": Family(
        title="FLUX.2",
        latent_channels=128,
        latent_downscale=16,
        latent_scale=1.0,
        latent_shift=0.0,
        token_cells=1,
        pooled=False,
        guidance=True,
        in_core=False,
        marks=("double_stream_modulation_img.lin.weight", "img_in.weight"),
    ),
    "sd3.5": Family(
        title="Stable Diffusion 3.5",
        latent_channels=16,
        latent_downscale=8,
        latent_scale=1.5305,
        latent_shift=0.0609,
        token_cells=2,
        pooled=True,
        guidance=False,
        in_core=False,
        marks=("joint_blocks.0.x_block.attn.qkv.weight", "y_embedder.mlp.0.weight"),
    ),
}
"""By the `type` that a checkpoint gives its network."""


def recognise(shapes: Mapping[str, Shape]) -> str | None:
    """The family a transformer belongs to, by its parameters' names; None for another one."""
    for name, family in FAMILIES.items():
        if all(mark in shapes for mark in family.marks):
            return name
    return None


def flux_architecture(shapes: Mapping[str, Shape]) -> dict[str, object]:
    """What the shapes of a FLUX.1 transformer's parameters tell of its architecture, under FluxParams' names."""
    hidden, tokens = shapes["img_in.weight"]
    head = shapes.get("double_blocks.0.img_attn.norm.query_norm.scale", (0,))[0]
    return {
        "latent_channels": tokens // 4,
        "vec_in_dim": shapes["vector_in.in_layer.weight"][1],
        "context_in_dim": shapes["txt_in.weight"][1],
        "hidden_size": hidden,
        "mlp_ratio": shapes["double_blocks.0.img_mlp.0.weight"][0] / hidden,
        "num_heads": hidden // head if head else 0,
        "depth": _count(shapes, "double_blocks"),
        "depth_single_blocks": _count(shapes, "single_blocks"),
        "guidance_embed": "guidance_in.in_layer.weight" in shapes,
    }


def _count(shapes: Mapping[str, Shape], blocks: str) -> int:
    return len({name.split(".")[1] for name in shapes if name.startswith(blocks + ".")})
