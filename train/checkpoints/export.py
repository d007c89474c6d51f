"""Measure t* on training pairs and write the checkpoint file from a run's averaged weights, finished or not.

The SNR head is that of the stage `snr_head`, or of the SR stage in a run without one.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
from dataclasses import asdict
from pathlib import Path

import torch

from allosr2_core.adapters import lora
from allosr2_core.bases.registry import BASES, base_name, title_of
from allosr2_core.checkpoint.config import AlloSR2Config
from allosr2_core.checkpoint.format import (
    HEAD,
    HOST_ENCODER,
    HOST_FLOW,
    LORA_ENCODER,
    LORA_FLOW,
    NULL,
    embedded_path,
    save_checkpoint,
    write_checkpoint,
)
from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import t_from_rho
from allosr2_core.networks.registry import network_params
from allosr2_core.snr import SNRHead, calibrated_t, paired_rho

from ..arguments import counting
from ..config import Config
from ..config_file import load_config
from ..data.crops import bicubic_up, training_crops
from ..data.degradation import SCALE
from ..loop.state import STATE, has_state, load_export, load_state, stage_folder
from ..models.build import autoencoder_spec, build_snr_head, network_spec
from ..models.trainable import Trainable, trainable_networks
from ..stages.registry import STAGES
from .history import told_once

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
"""Name of the file in the run's folder, where no other is named."""
TILE_SIZE = 512
"""px, for networks with a finite receptive field; others are shown no more at once than they were trained on."""


@torch.no_grad()
def measure_rho(config: Config, autoencoder: Trainable, pairs: int) -> torch.Tensor:
    """rho of `pairs` fresh training pairs with the adapted encoder on the LR side, [pairs]."""
    crops, values = training_crops(config, "calibrate", 0, pairs, degraded=True), []
    for i in range(pairs):
        item = crops[i]
        with autoencoder.original() as original:
            z_hr = original.encode(item["hr"][None].mul(2).sub(1))
        z_lr = autoencoder.network.encode(bicubic_up(item["lr"][None], SCALE).mul(2).sub(1))
        values.append(paired_rho(z_lr, z_hr))
    return torch.cat(values)


def training_record(config: Config, folder: Path) -> dict[str, object]:
    """What the checkpoint says about its training: configuration, steps and hours of each stage, commit.

    Under "continues", oldest first, the runs or the checkpoint that its stages started from.
    """
    stages, continues = {}, list[object]()
    for name in STAGES:
        place = stage_folder(folder, name)
        if has_state(place):
            state = load_state(place / STATE)
            stages[name] = {"steps": state["step"], "hours": round(state["seconds"] / 3600, 3)}
            continues += state.get("history", [])
    settings = asdict(config)
    for part, key in (("run", "dir"), ("data", "root"), ("data", "cache"), ("data", "sources")):
        del settings[part][key]  # folders of this machine are nobody's business
    record = {"config": settings, "stages": stages, "commit": _commit(), "data": "train split of train/photos.json"}
    return told_once(record | ({"continues": continues} if continues else {}))


def _commit() -> str:
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main(argv: list[str]) -> int:
    """`python -m train export --config ... [--out FILE | --embedded] [--pairs N]`."""
    parser = argparse.ArgumentParser(prog="python -m train export", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("train/configs/mini.toml"))
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, help=f"default: {CHECKPOINT} in the run's folder")
    place.add_argument("--embedded", action="store_true", help="replace the checkpoint that ships with the pack")
    parser.add_argument("--pairs", type=counting, default=256, help="training pairs t* is measured on")
    parser.add_argument("--t-method", choices=("predicted", "calibrated"), default="predicted")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config)
    if arguments.embedded and config.adapter.rank:
        raise AlloSR2Error(f"--embedded: expected a checkpoint with its own base; {arguments.config} trains an adapter")
    folder = Path(config.run.dir)
    out = embedded_path() if arguments.embedded else arguments.out or folder / CHECKPOINT

    velocity, autoencoder = trainable_networks(config)
    head = build_snr_head(config)
    tuned = {"velocity": velocity.network, "encoder": autoencoder.network.encoder}
    if config.stages.sr.decoder_lr:
        tuned["decoder"] = autoencoder.network.decoder
    for name, module in tuned.items():
        load_export(module, stage_folder(folder, "sr") / f"{name}.safetensors")
    later, encoder = (
        stage_folder(folder, "snr_head") / "snr_head.safetensors",
        stage_folder(folder, "sr") / "encoder.safetensors",
    )
    if later.exists() and later.stat().st_mtime < encoder.stat().st_mtime:
        raise AlloSR2Error(
            f"expected a head trained on {encoder}; {later} is older: move {later.parent} away, "
            "and run `python -m train snr_head` again"
        )
    load_export(head, later if later.exists() else stage_folder(folder, "sr") / "snr_head.safetensors")
    rho = measure_rho(config, autoencoder, arguments.pairs)
    t_star, times = calibrated_t(rho), t_from_rho(rho)
    quantiles = [round(float(q), 3) for q in torch.quantile(times, torch.tensor([0.05, 0.5, 0.95]))]
    stage, params, network = config.stages.sr, autoencoder.network.params, network_spec(config)
    latent_scale, latent_shift = params.latent_format or (1.0, 0.0)
    spec = AlloSR2Config(
        base=base_name(network) if velocity.branched else "allosr2-mini",
        network=network,
        autoencoder=autoencoder_spec(config),
        adapter={"transformer": list(config.adapter.transformer), "vae_encoder": list(config.adapter.encoder)}
        if velocity.branched
        else {},
        snr_head=asdict(head.params),
        init=stage.init,
        t_star=min(max(round(t_star, 4), stage.t_min), stage.t_max),
        t_min=stage.t_min,
        t_max=stage.t_max,
        t_method=arguments.t_method,
        scale=SCALE,
        trained_size=config.data.crop,
        tile_size=TILE_SIZE if network_params(network).radius is not None else config.data.crop,
        latent_channels=params.latent_channels,
        latent_downscale=params.downscale,
        latent_scale=latent_scale,
        latent_shift=latent_shift,
    )
    record = training_record(config, folder) | {"t_quantiles_05_50_95": quantiles, "pairs": arguments.pairs}
    write = _write_adapter if velocity.branched else _write_standalone
    write(out, spec, record, velocity, autoencoder, head)
    log.info("%s: %s", out, json.dumps({"t_star": spec.t_star, "t_quantiles": quantiles}))
    return 0


def _write_standalone(
    out: Path,
    spec: AlloSR2Config,
    record: dict[str, object],
    velocity: Trainable,
    autoencoder: Trainable,
    head: SNRHead,
) -> None:
    shipped = autoencoder.copy
    if not spec.is_local_codec:
        raise AlloSR2Error("expected adapter.rank above 0 for a base: a file without its weights is an adapter")
    shipped.decoder.load_state_dict(autoencoder.network.decoder.state_dict())
    save_checkpoint(
        out,
        spec,
        record,
        prior=velocity.copy,
        network=velocity.network,
        autoencoder=shipped,
        encoder=autoencoder.network.encoder,
        snr_head=head,
    )


def _write_adapter(
    out: Path,
    spec: AlloSR2Config,
    record: dict[str, object],
    velocity: Trainable,
    autoencoder: Trainable,
    head: SNRHead,
) -> None:
    network, encoder = velocity.network, autoencoder.network.encoder
    if not network.null:
        raise AlloSR2Error(f"expected the network.type of a base for an adapter; got {spec.network.get('type')!r}")
    tensors = {LORA_FLOW + k: v for k, v in lora.export_lora(network.adapted, HOST_FLOW).items()}
    tensors |= {LORA_ENCODER + k: v for k, v in lora.export_lora(encoder, HOST_ENCODER).items()}
    tensors |= {HEAD + k: v for k, v in head.state_dict().items()}
    tensors |= {NULL + k: v for k, v in network.null.items()}
    base = BASES.get(spec.base)
    write_checkpoint(
        out,
        spec,
        record,
        tensors,
        dtype=torch.float16,
        title=f"AlloSR2 for {title_of(spec.base)}",
        license=base.license if base else "that of its base",
    )
