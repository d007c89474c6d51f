"""Files of a FLUX.1-class base with random tiny weights, and the shipped configuration at that size."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from allosr2_core.networks.flux import Flux, FluxParams
from allosr2_core.networks.kl_autoencoder import KLAutoencoder, KLAutoencoderParams
from tests.support.tiny_flux import TINY_FLUX
from tests.support.tiny_training import tiny_table
from train.config_file import load_config

CONFIGS = Path("train/configs")
AUTOENCODER = {
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "z_channels": 4,
    "scale_factor": 0.4,
    "shift_factor": 0.1,
}


def base_table(
    root: Path,
    *,
    guidance: bool,
    steps: int = 3,
    flux: dict[str, Any] = TINY_FLUX,
    autoencoder: dict[str, Any] = AUTOENCODER,
) -> dict[str, Any]:
    """The shipped configuration's settings at the size of a test, with random base files in root."""
    shipped = load_config(CONFIGS / ("flux1_dev.toml" if guidance else "flux1_schnell.toml"))
    table = tiny_table(root, steps=steps)
    params = flux | {"guidance_embed": guidance}
    write_base(root, params, autoencoder, seed=int(guidance))
    table["base"] = {
        "transformer": str(root / "transformer.safetensors"),
        "autoencoder": str(root / "ae.safetensors"),
        "null": str(root / "null.safetensors"),
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
    table["autoencoder"] = {"type": "kl", "params": autoencoder}
    table["network"] = {"type": "flux", "params": params | ({"guidance": 1.0} if guidance else {})}
    table["stages"]["sr"]["decoder_lr"] = 0.0
    table["stages"]["sr"]["weights"] |= {"lattice": 0.0, "repeat": 0.0, "grain": 0.0, "decode": 0.0}
    return table


def write_base(root: Path, params: dict[str, Any], autoencoder: dict[str, Any], seed: int) -> None:
    """transformer.safetensors, ae.safetensors and null.safetensors with random weights under which all of it matters.

    Random convolutions in a row lose their input's spread; gains of the usual size keep a picture visible.
    """
    torch.manual_seed(seed)
    channels = 4 * autoencoder["z_channels"]
    with torch.device("meta"):
        transformer = Flux(FluxParams(**params, in_channels=channels, out_channels=channels))
    tensors = {name: _random(name, tuple(value.shape)) for name, value in transformer.state_dict().items()}
    save_file(tensors, root / "transformer.safetensors")
    save_file(KLAutoencoder(KLAutoencoderParams(**autoencoder)).state_dict(), root / "ae.safetensors")
    null = {"context": torch.randn(1, 3, params["context_in_dim"]), "pooled": torch.randn(1, params["vec_in_dim"])}
    save_file(null, root / "null.safetensors")


def _random(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    noise = torch.randn(shape)
    if name.endswith("scale"):
        return 1.0 + 0.1 * noise
    return 0.1 * noise if len(shape) == 1 else noise.mul_(shape[1] ** -0.5)
