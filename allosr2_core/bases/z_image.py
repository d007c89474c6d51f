"""Z-Image by Tongyi. Adapters run on a host's MODEL."""

from .registry import Family, register

register(
    "z-image",
    Family(
        title="Z-Image",
        latent_channels=16,
        latent_downscale=8,
        latent_scale=0.3611,
        latent_shift=0.1159,
        token_cells=2,
        pooled=False,
        guidance=False,
        marks=("cap_embedder.1.weight", "x_pad_token", "cap_pad_token", "final_layer.linear.weight"),
    ),
)
