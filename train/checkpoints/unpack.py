"""Turn a checkpoint back into a run folder: to go on training, or to fine-tune the embedded one on other photographs.

python -m train unpack [CHECKPOINT] --config train/configs/mini_continue.toml
python -m train sr --config train/configs/mini_continue.toml --init-from <run>/unpacked

The configuration must describe the checkpoint's networks; by default both are the embedded one's.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from torch import nn

from allosr2_core.checkpoint.format import Checkpoint, embedded_path, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically, writing

from ..config_file import load_config
from ..loop.state import RECORD, export
from ..models.build import build_autoencoder, build_snr_head, build_velocity

log = logging.getLogger(__name__)
FOLDER = "unpacked"


def unpack(checkpoint: Checkpoint, run: Path) -> Path:
    """Write the modules of every stage below `run`, as the stages export them; returns the folder for --init-from.

    Optimiser moments are not in a checkpoint, and its weights were rounded to fp16. A module that is already there is
    not overwritten: AlloSR2Error names it.
    """
    autoencoder, network = checkpoint.build_autoencoder(0.0), checkpoint.build_network()
    parts: dict[str, dict[str, nn.Module]] = {
        "autoencoder": {"autoencoder": autoencoder},
        "prior": {"velocity": checkpoint.build_prior()},
        FOLDER: {
            "velocity": network,
            "encoder": checkpoint.build_autoencoder().encoder,
            "decoder": autoencoder.decoder,
            "snr_head": checkpoint.build_snr_head(),
        },
    }
    there = [
        str(path)
        for stage, modules in parts.items()
        for n in modules
        if (path := run / stage / f"{n}.safetensors").exists()
    ]
    if there:
        raise AlloSR2Error(f"expected a run folder without {', '.join(there)}: move it away or name another [run] dir")
    for stage, modules in parts.items():
        (run / stage).mkdir(parents=True, exist_ok=True)
        export(nn.ModuleDict(modules).requires_grad_(True), run / stage)
    record = json.dumps(dict(checkpoint.training))
    with writing(run / FOLDER / RECORD):
        write_atomically(run / FOLDER / RECORD, lambda partial: partial.write_text(record, encoding="utf-8"))
    return run / FOLDER


def main(argv: list[str]) -> int:
    """`python -m train unpack [CHECKPOINT] [--config ...]`."""
    parser = argparse.ArgumentParser(prog="python -m train unpack", description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=embedded_path())
    parser.add_argument("--config", type=Path, default=Path("train/configs/mini_continue.toml"))
    arguments = parser.parse_args(argv)
    config, checkpoint = load_config(arguments.config), load_checkpoint(arguments.checkpoint)
    try:  # the configuration must describe the networks of the checkpoint
        build_velocity(config).load_state_dict(checkpoint.build_network().state_dict())
        build_autoencoder(config).load_state_dict(checkpoint.build_autoencoder().state_dict())
        build_snr_head(config).load_state_dict(checkpoint.build_snr_head().state_dict())
    except RuntimeError as error:
        raise AlloSR2Error(f"{arguments.config.name} describes other networks than the checkpoint: {error}") from error
    log.info("--init-from %s", unpack(checkpoint, Path(config.run.dir)))
    return 0
