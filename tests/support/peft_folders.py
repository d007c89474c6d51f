"""Small networks for adapters in peft's form, and such adapters written by hand."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from allosr2_core.networks.flux import FluxParams
from allosr2_core.networks.kl_autoencoder import KLAutoencoderParams

FLUX = FluxParams(
    in_channels=16,
    out_channels=16,
    vec_in_dim=12,
    context_in_dim=20,
    hidden_size=64,
    mlp_ratio=4.0,
    num_heads=2,
    depth=2,
    depth_single_blocks=2,
    axes_dim=(8, 12, 12),
    theta=10_000,
    qkv_bias=True,
    guidance_embed=True,
)
VAE = KLAutoencoderParams(
    in_channels=3,
    out_ch=3,
    ch=32,
    ch_mult=(1, 2, 2),
    num_res_blocks=2,
    z_channels=4,
    scale_factor=0.3611,
    shift_factor=0.1159,
)
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "target_modules": ["to_q"]}
Q, PROJ = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_out.0"


def pair(layer: str, rank: int = 2, width: int = 64, rows: int = 64, name: str = "") -> dict[str, Tensor]:
    """The halves of one layer under peft's keys; `name` is that of the adapter, with a dot before it."""
    generator = torch.Generator().manual_seed(rank)
    return {
        f"base_model.model.{layer}.lora_A{name}.weight": torch.randn(rank, width, generator=generator),
        f"base_model.model.{layer}.lora_B{name}.weight": torch.randn(rows, rank, generator=generator),
    }


def write(folder: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    """The folder, with these tensors and this configuration in it."""
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    return folder
