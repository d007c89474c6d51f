"""Stable Diffusion 3.5 by Stability AI. Adapters run on a host's MODEL."""

from .registry import Family, register

register(
    "sd3.5",
    Family(
        title="Stable Diffusion 3.5",
        latent_channels=16,
        latent_downscale=8,
        latent_scale=1.5305,
        latent_shift=0.0609,
        token_cells=2,
        pooled=True,
        guidance=False,
        marks=("joint_blocks.0.x_block.attn.qkv.weight", "y_embedder.mlp.0.weight"),
    ),
)
