"""A training run small enough for tests: its configuration, as a table and as TOML, and made-up photographs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import Tensor, nn

from train.__main__ import main
from train.stages import autoencoder


def tiny_table(root: Path, steps: int = 4) -> dict[str, Any]:
    """What a configuration file says, for a run in root/run on photographs in root/data/photos."""
    optim = {
        "optimizer": "adamw",
        "steps": steps,
        "batch": 2,
        "micro": 0,
        "lr": 1e-3,
        "warmup": 1,
        "decay": min(2, steps),
        "ema": 0.9,
        "grad_clip": 1.0,
    }
    return {
        "run": {
            "dir": str(root / "run"),
            "seed": 3,
            "threads": 0,
            "precision": "no",
            "save_minutes": 60.0,
            "log_every": 1,
            "preview_every": 1000,
            "tensorboard": False,
        },
        "data": {
            "root": str(root / "data" / "photos"),
            "cache": str(root / "data" / "cache"),
            "crop": 64,
            "workers": 0,
            "zoom": [0.3, 1.0],
            "strengths": [0.25, 0.5, 0.25],
            "extended": False,
            "sources": [],
        },
        "base": {"transformer": "", "autoencoder": "", "null": "", "dtype": "fp32"},
        "adapter": {"rank": 0, "alpha": 0.0, "transformer": [], "encoder": [], "checkpointing": False, "shard": False},
        "autoencoder": {
            "type": "patch",
            "params": {"patch": 4, "latent_channels": 8, "hidden": 8, "blocks": 1, "pixel_channels": 4},
        },
        "network": {"type": "unet", "params": {"channels": [8, 12], "blocks": [1, 1], "time_dim": 8}},
        "stages": {
            "autoencoder": {"optim": dict(optim), "pca_patches": 1000, "latent_noise": 0.1, "perceptual": 0.1},
            "prior": {"optim": dict(optim), "t_logit_mean": 0.0, "t_logit_std": 1.0},
            "sr": {
                "optim": dict(optim),
                "init": "aligned",
                "t_min": 0.03,
                "t_max": 0.6,
                "t_jitter": 0.1,
                "t_guessed": 0.5,
                "encoder_lr": 0.5,
                "decoder_lr": 0.5,
                "head_lr": 1.0,
                "sharpen": 0.5,
                "sharpen_sigma": 2.0,
                "sharpen_threshold": 4.0,
                "perceptual": [],
                "perceptual_from": 0,
                "perceptual_crop": 0,
                "atm_from": 1,
                "atm_t": [0.05, 0.6],
                "paths_every": 2,
                "adversary": {"network": "unet", "channels": 4, "lr": 1e-3, "crop": 32, "start": 0},
                "weights": {
                    "rec_pixel": 1.0,
                    "rec_latent": 0.1,
                    "fatc": 0.05,
                    "anchor": 0.05,
                    "atm_match": 0.02,
                    "atm_fake": 0.05,
                    "snr_head": 0.1,
                    "lattice": 0.1,
                    "repeat": 0.1,
                    "grain": 0.1,
                    "decode": 0.1,
                    "adversarial": 0.1,
                    "ldl": 1.0,
                },
            },
            "snr_head": {"optim": dict(optim), "hidden": 16, "crop": 64, "zoom": [0.5, 2.0], "flat_share": 1.0},
        },
    }


def write_config(root: Path, name: str, steps: int, batch: int = 2) -> Path:
    """A configuration file for a run of its own in root/NAME, on the photographs in root."""
    table = tiny_table(root, steps)
    table["run"]["dir"] = str(root / name)
    for stage in table["stages"].values():
        stage["optim"]["batch"] = batch
    path = root / f"{name}.toml"
    path.write_text(to_toml(table), encoding="utf-8")
    return path


def to_toml(table: dict[str, Any]) -> str:
    """A table as TOML; nested tables are written inline."""
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(part)}" for key, part in value.items()) + " }"
    return "[" + ", ".join(map(_value, value)) + "]" if isinstance(value, list) else json.dumps(value)


def write_photos(root: Path, split: str, sizes: list[tuple[int, int]]) -> list[Path]:
    """Pictures with detail at every scale and a little noise, height x width px, as root/data/photos/SPLIT/N.png."""
    folder = root / "data" / "photos" / split
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (height, width) in enumerate(sizes):
        rng = torch.Generator().manual_seed(number + 100 * len(split))
        picture = torch.full((1, 3, height, width), 0.5)
        for cell in (32, 8, 2):
            coarse = torch.randn(1, 3, -(-height // cell), -(-width // cell), generator=rng)
            picture += 0.12 * functional.interpolate(coarse, size=(height, width), mode="bicubic")
        picture += 0.02 * torch.randn(picture.shape, generator=rng)
        pixels = picture[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous()
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels.numpy()).save(paths[-1])
    return paths


class MeanDistance(nn.Module):
    """In the place of a feature network, whose weights would have to be fetched."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().mean(dim=(1, 2, 3))

    def against(self, y: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: self(x, y)


def run_autoencoder(config: Path, *options: str) -> int:
    """The first stage by its command, without the network's download; the exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "load_st_lpips", lambda net, root: MeanDistance())
        return main(["autoencoder", "--config", str(config), *options])
