"""The smallest FLUX-class transformer a checkpoint can name, as its configuration states it."""

from typing import Any

TINY_FLUX: dict[str, Any] = {
    "vec_in_dim": 8,
    "context_in_dim": 8,
    "hidden_size": 16,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [2, 2, 4],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": False,
}
