"""A tiny AlloSR2 checkpoint with random weights: for the tests of the host's side, which need no trained one."""

import copy
from pathlib import Path

import torch

from allosr2_core.checkpoint.config import AlloSR2Config
from allosr2_core.checkpoint.format import save_checkpoint
from allosr2_core.networks.patch_autoencoder import PatchAutoencoder, PatchAutoencoderParams, principal_components
from allosr2_core.networks.registry import build_network
from allosr2_core.snr import SNRHead, SNRHeadParams

CHANNELS = 16


def small_config(tile_size: int = 128, latent_scale: float = 1.0, latent_shift: float = 0.0) -> AlloSR2Config:
    return AlloSR2Config(
        base="allosr2-mini",
        network={
            "type": "unet",
            "latent_channels": CHANNELS,
            "channels": [16, 24],
            "blocks": [1, 1],
            "time_dim": 16,
            "preconditioned": True,  # the embedded checkpoint's is not: between them both kinds are tested
        },
        adapter={},
        autoencoder={"patch": 4, "latent_channels": CHANNELS, "hidden": 16, "blocks": 1, "pixel_channels": 8},
        snr_head={"latent_channels": CHANNELS, "hidden": 8, "levels": 2},
        init="aligned",
        t_star=0.22,
        t_min=0.05,
        t_max=0.6,
        t_method="predicted",
        scale=4,
        trained_size=128,
        tile_size=tile_size,
        latent_channels=CHANNELS,
        latent_downscale=4,
        latent_scale=latent_scale,
        latent_shift=latent_shift,
    )


def save_small_checkpoint(path: Path, seed: int = 0, config: AlloSR2Config | None = None) -> None:
    """Write it. Every part has an effect: the zero-initialised layers get weights, the tuned copies differ."""
    torch.manual_seed(seed)
    config = small_config() if config is None else config
    prior = _shaken(build_network(config.network), 0.03)
    autoencoder = PatchAutoencoder(PatchAutoencoderParams(**config.autoencoder))
    smooth = torch.nn.functional.interpolate(torch.rand(400, 3, 2, 2), size=(4, 4), mode="bicubic")
    patches = smooth.flatten(1) * 2.0 - 1.0 + 0.02 * torch.randn(400, 48)
    autoencoder.set_basis(*principal_components(patches, CHANNELS))
    _shaken(autoencoder, 0.003)
    save_checkpoint(
        path,
        config,
        {"data": "none: random weights for tests"},
        prior=prior,
        network=_shaken(copy.deepcopy(prior), 0.02),
        autoencoder=autoencoder,
        encoder=_shaken(copy.deepcopy(autoencoder.encoder), 0.005),
        snr_head=SNRHead(SNRHeadParams(**config.snr_head)),
    )


def _shaken(module: torch.nn.Module, amount: float) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
    return module
