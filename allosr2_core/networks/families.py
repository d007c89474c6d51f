"""The flow model families an adapter can be for: what their latents are, and how a transformer of theirs is recognised.

The core builds and trains FLUX.1. The others run on a MODEL the host has loaded; a trainer for one of them needs its
transformer behind `networks.build_network`, under the type's name here, and its base in `bases.BASES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import AlloSR2Error

Shape = tuple[int, ...]

HEAD_NORMS = ("query_norm", "key_norm")
GAINS = ("scale", "weight")
"""What the gain of a head norm is called: `scale` in the files, the core and older hosts, `weight` in newer hosts."""


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
    """Parameters that together only this family's transformer has, each in one of its spellings."""


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
        marks=("cap_embedder.1.weight", "x_pad_token", "cap_pad_token", "final_layer.linear.weight"),
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


def spellings(name: str) -> tuple[str, ...]:
    """The names that files and hosts have for one parameter, the files' first; just `name` for most."""
    layer, _, kind = name.rpartition(".")
    if kind in GAINS and layer.endswith(HEAD_NORMS):
        return tuple(f"{layer}.{gain}" for gain in GAINS)
    return (name,)


def recognise(shapes: Mapping[str, Shape]) -> str | None:
    """The family a transformer belongs to, by its parameters' names; None for another one."""
    return next((name for name in FAMILIES if not missing_marks(name, shapes)), None)


def missing_marks(family: str, shapes: Mapping[str, Shape]) -> list[str]:
    """The marks of a family that a transformer has in no spelling."""
    return [mark for mark in FAMILIES[family].marks if not any(name in shapes for name in spellings(mark))]


def flux_architecture(shapes: Mapping[str, Shape]) -> dict[str, object]:
    """What the shapes of a FLUX.1 transformer's parameters tell of its architecture, under FluxParams' names.

    Raises AlloSR2Error when a parameter that tells is not there, under any name it is known by.
    """
    hidden, tokens = _shape(shapes, "img_in.weight")
    (head,) = _shape(shapes, "double_blocks.0.img_attn.norm.query_norm.scale")
    return {
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
