"""Measure t* on training pairs and write the checkpoint file from a run's averaged weights, finished or not."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
from dataclasses import asdict
from pathlib import Path

import torch

from allosr2_core.checkpoint import AlloSR2Config, embedded_path, save_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import t_from_rho
from allosr2_core.patch_autoencoder import PatchAutoencoder, PatchEncoder
from allosr2_core.snr import SNRHead, SNRHeadParams, calibrated_t, paired_rho

from .allosr2 import HEAD_HIDDEN, HEAD_LEVELS
from .config import Config, load_config
from .data import bicubic_up, training_crops
from .degradation import SCALE
from .models import build_codec, build_velocity, load_codec, load_velocity
from .state import load_export

log = logging.getLogger(__name__)

TILE_SIZE = 512
"""px, for networks with a finite receptive field; others are shown no more at once than they were trained on."""
STAGES = ("autoencoder", "prior", "allosr2")


@torch.no_grad()
def measure_rho(config: Config, encoder: PatchEncoder, pairs: int) -> torch.Tensor:
    """rho of `pairs` fresh training pairs with the adapted encoder on the LR side, [pairs]."""
    codec, crops = load_codec(config), training_crops(config, "calibrate", 0, pairs, degraded=True)
    values = []
    for i in range(pairs):
        item = crops[i]
        z_hr = codec.encode(item["hr"][None].mul(2).sub(1))
        values.append(paired_rho(encoder(bicubic_up(item["lr"][None], SCALE).mul(2).sub(1)), z_hr))
    return torch.cat(values)


def training_record(config: Config, folder: Path) -> dict[str, object]:
    """What the checkpoint says about its training: configuration, steps and hours of each stage, commit.

    Under "continues", oldest first, the runs or the checkpoint that the SR stage started from.
    """
    stages, continues = {}, []
    for name in STAGES:
        path = folder / name / "state.pt"
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
            stages[name] = {"steps": state["step"], "hours": round(state["seconds"] / 3600, 3)}
            continues = state.get("history", [])  # of the last stage
    settings = asdict(config)
    for part, key in (("run", "dir"), ("data", "root"), ("data", "cache"), ("data", "sources")):
        del settings[part][key]  # folders of this machine are nobody's business
    record = {"config": settings, "stages": stages, "commit": _commit(), "data": "train split of train/photos.json"}
    return record | ({"continues": continues} if continues else {})


def _commit() -> str:
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main(argv: list[str]) -> int:
    """`python -m train calibrate --config ... [--out FILE] [--pairs N]`."""
    parser = argparse.ArgumentParser(prog="python -m train calibrate", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("train/configs/mini.toml"))
    parser.add_argument("--out", type=Path, default=embedded_path())
    parser.add_argument("--pairs", type=int, default=256, help="training pairs t* is measured on")
    parser.add_argument("--t-method", choices=("predicted", "calibrated"), default="predicted")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config)
    folder = Path(config.run.dir)

    if config.adapter.rank or config.base.transformer:
        raise AlloSR2Error("expected a run without a base; files of adapters for FLUX.1 are not written yet")
    autoencoder, fresh = load_codec(config), build_codec(config)
    assert isinstance(autoencoder, PatchAutoencoder) and isinstance(fresh, PatchAutoencoder)  # noqa: S101 - no base
    encoder, codec = fresh.encoder, autoencoder.params
    network = build_velocity(config)
    head = SNRHead(SNRHeadParams(codec.latent_channels, HEAD_HIDDEN, HEAD_LEVELS))
    tuned = {"velocity": network, "encoder": encoder, "snr_head": head}
    if config.allosr2.decoder_lr:
        tuned["decoder"] = autoencoder.decoder
    for name, module in tuned.items():
        load_export(module, folder / "allosr2" / f"{name}.safetensors")
    rho = measure_rho(config, encoder, arguments.pairs)
    t_star, times = calibrated_t(rho), t_from_rho(rho)
    quantiles = [round(float(q), 3) for q in torch.quantile(times, torch.tensor([0.05, 0.5, 0.95]))]
    stage = config.allosr2
    spec = AlloSR2Config(
        base="allosr2-mini",
        network={"type": config.network.type, "latent_channels": codec.latent_channels, **config.network.params},
        autoencoder=asdict(codec),
        snr_head=asdict(head.params),
        init=stage.init,
        t_star=min(max(round(t_star, 4), stage.t_min), stage.t_max),
        t_min=stage.t_min,
        t_max=stage.t_max,
        t_method=arguments.t_method,
        scale=SCALE,
        trained_size=config.data.crop,
        tile_size=TILE_SIZE if hasattr(network, "radius") else config.data.crop,
        latent_channels=codec.latent_channels,
        latent_downscale=codec.patch,
        latent_scale=1.0,
        latent_shift=0.0,
    )
    record = training_record(config, folder) | {"t_quantiles_05_50_95": quantiles, "pairs": arguments.pairs}
    save_checkpoint(
        arguments.out,
        spec,
        record,
        prior=load_velocity(config),
        network=network,
        autoencoder=autoencoder,
        encoder=encoder,
        snr_head=head,
    )
    log.info("%s: %s", arguments.out, json.dumps({"t_star": spec.t_star, "t_quantiles": quantiles}))
    return 0
