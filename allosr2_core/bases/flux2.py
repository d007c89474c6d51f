"""FLUX.2 by Black Forest Labs: dev and klein. Adapters run on a host's MODEL."""

from .flux1 import GAINS
from .registry import Family, register

register(
    "flux2",
    Family(
        title="FLUX.2",
        latent_channels=128,
        latent_downscale=16,
        latent_scale=1.0,
        latent_shift=0.0,
        token_cells=1,
        pooled=False,
        guidance=True,
        marks=("double_stream_modulation_img.lin.weight", "img_in.weight"),
        spellings=GAINS,
    ),
)
