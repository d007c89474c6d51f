"""Files of a FLUX.1-class base with random tiny weights, and the shipped configuration at that size."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from allosr2_core.autoencoder import Autoencoder, AutoencoderParams
from allosr2_core.transformer import Flux, FluxParams
from tests.support.tiny_flux import TINY_FLUX
from tests.support.tiny_training import tiny_table
from train.config import load_config

CONFIGS = Path("train/configs")
CODEC = {
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "z_channels": 4,
    "scale_factor": 0.4,
    "shift_factor": 0.1,
}


def base_table(root: Path, *, guidance: bool, steps: int = 3) -> dict[str, Any]:
    """The shipped configuration's settings at the size of a test, with random base files in root."""
    shipped = load_config(CONFIGS / ("flux1_dev.toml" if guidance else "flux1_schnell.toml"))
    table = tiny_table(root, steps=steps)
    params = TINY_FLUX | {"guidance_embed": guidance}
    torch.manual_seed(int(guidance))
    flux = Flux(FluxParams(**params, in_channels=16, out_channels=16))
    for parameter in flux.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    save_file({k: v.contiguous() for k, v in flux.state_dict().items()}, root / "transformer.safetensors")
    save_file(Autoencoder(AutoencoderParams(**CODEC)).state_dict(), root / "ae.safetensors")
    table["base"] = {
        "transformer": str(root / "transformer.safetensors"),
        "autoencoder": str(root / "ae.safetensors"),
        "null": "",
        "dtype": "fp32",
    }
    table["adapter"] = {
        "rank": 2,
        "alpha": 2.0,
        "transformer": list(shipped.adapter.transformer),
        "encoder": list(shipped.adapter.encoder),
        "checkpointing": True,
        "shard": False,
    }
    table["codec"] = {"type": "kl", "params": CODEC}
    table["network"] = {"type": "flux", "params": params | ({"guidance": 1.0} if guidance else {})}
    table["allosr2"] |= {"decoder_lr": 0.0, "lattice": 0.0, "repeat": 0.0, "checker": 0.0, "decode": 0.0}
    return table
