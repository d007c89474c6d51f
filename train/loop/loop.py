"""The one training loop.

Everything random is a pure function of (seed, step), so resuming needs only weights, averages, optimiser and the step.
`optim.batch` is the batch of a step over all processes: under `accelerate launch` each takes its share of it, and the
run is the same one.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from allosr2_core.errors import AlloSR2Error

from .. import former_names
from ..config import Config, OptimConfig
from ..data.crops import derive_seed
from .interrupts import Interrupted, leave_interrupts_to_the_loop
from .optimizers import make_optimizer
from .precision import mixed_precision
from .preview import strip
from .rng import BatchRandom
from .run_log import RunLog
from .sharding import leave_frozen_to_themselves, shard_frozen
from .stage import Stage
from .state import (
    STATE,
    export,
    history_of,
    load_state,
    load_trained_state,
    save_state,
    stage_folder,
    trained_state,
)

log = logging.getLogger(__name__)


def lr_factor(step: int, optim: OptimConfig) -> float:
    """Warm-up, constant, linear decay to zero over the last `decay` steps."""
    rise = min(1.0, (step + 1) / max(1, optim.warmup))
    fall = min(1.0, (optim.steps - step) / max(1, optim.decay))
    return min(rise, fall)


def init_from(stage: Stage, folder: Path) -> list[dict[str, Any]]:
    """Start from another run's averaged modules, those of the same name; a new optimiser and adversary, step 0.

    Returns that run's history, for `run_stage` to keep.
    """
    found = [name for name in stage.trained if (folder / f"{name}.safetensors").exists()]
    if not found:
        names = ", ".join(f"{name}.safetensors" for name in stage.trained)
        raise AlloSR2Error(f"expected one of {names} in {folder}; there is none")
    for name in found:
        path = folder / f"{name}.safetensors"
        load_trained_state(stage.trained[name], load_file(path), str(path))
    log.info("%s: initialised %s from %s", stage.name, ", ".join(found), folder)
    if stage.adversary is not None:
        log.info("%s: its adversary starts with fresh weights", stage.name)
    return history_of(folder)


class Run:
    """A stage being trained: what is saved, what is resumed, one step."""

    def __init__(self, stage: Stage, config: Config, accelerator: Accelerator) -> None:
        self.stage, self.config, self.optim, self.accelerator = stage, config, stage.optim, accelerator
        processes, batch = accelerator.num_processes, self.optim.batch
        if batch % processes:
            raise AlloSR2Error(f"{stage.name}: expected a batch that {processes} processes share evenly; got {batch}")
        share = batch // processes
        self.micro = self.optim.micro or share
        if self.micro < 0 or share % self.micro:
            raise AlloSR2Error(
                f"{stage.name}: expected a micro batch that divides a share of {share}; got {self.micro}"
            )
        self.passes = share // self.micro
        groups = stage.parameter_groups()
        for group in groups:
            group["lr"] = self.optim.lr * group["lr_scale"]
        half = accelerator.mixed_precision == "bf16"
        self.optimizer: Any = make_optimizer(self.optim, groups, torch.bfloat16 if half else torch.float32)
        blocks = stage.blocks_to_shard() if processes > 1 else ()
        if blocks:
            shard_frozen(blocks, accelerator.device)
            leave_frozen_to_themselves(stage)
            log.info("%s: %d frozen blocks spread over %d processes", stage.name, len(blocks), processes)
        self.sharded = bool(blocks)
        if stage.adversary is not None and accelerator.mixed_precision == "fp16":  # which scales for one optimiser
            raise AlloSR2Error("run.precision: expected bf16 or no with an adversary; got fp16")
        stage.to(accelerator.device)
        self.averages = stage.averages
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        """Of the modules a run started from (`state.history_of`)."""

    def resume(self, path: Path) -> None:
        """Go on from a saved state. Settings that differ from those it was saved under are named in the log."""
        state = load_state(path)
        load_trained_state(self.stage.trained, state["trained"], str(path))
        self.averages.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.stage.adversary is not None:
            self.stage.adversary.load(state.get("adversary"), str(path))
        self.step, self.seconds, self.history = state["step"], state["seconds"], state.get("history", [])
        log.info("%s: resumed %s at step %d (%.1f min trained)", self.stage.name, path, self.step, self.seconds / 60)
        before = former_names.settings(state.get("settings", {}))
        for key, value in self._settings().items():
            if key in before and before[key] != value:
                log.warning("%s: %s is %r now and was %r", self.stage.name, key, value, before[key])

    def prepare(self) -> None:
        """Make the data loader and hand everything to accelerate."""
        data = self.config.data
        loader = DataLoader(
            self.stage.dataset(self.step * self.optim.batch),
            batch_size=self.micro,
            num_workers=data.workers,
            drop_last=True,
            prefetch_factor=4 if data.workers else None,
            worker_init_fn=leave_interrupts_to_the_loop,
        )
        self.model, self.optimizer, loader = self.accelerator.prepare(self.stage, self.optimizer, loader)
        self.batches = iter(loader)

    def advance(self) -> tuple[dict[str, Tensor], float]:
        """One step: (weighted sum and terms, means over this process's samples; gradient norm)."""
        stage = self.stage
        for group in self.optimizer.param_groups:
            group["lr"] = self.optim.lr * group["lr_scale"] * lr_factor(self.step, self.optim)
        sums: dict[str, Tensor] = {}
        for number in range(self.passes):
            last = number == self.passes - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                for name, value in self._backward(number).items():
                    sums[name] = sums.get(name, 0.0) + value / self.passes
        norm = float(self.accelerator.clip_grad_norm_(stage.trained.parameters(), self.optim.grad_clip))
        against = stage.adversary.clip(self.optim.grad_clip) if stage.adversary is not None else 0.0
        if not (torch.isfinite(sums["total"]) and math.isfinite(norm + against)):  # before the weights are touched
            scalars = {name: float(value) for name, value in sums.items()}
            total = scalars.pop("total")
            raise AlloSR2Error(f"{stage.name}: loss {total}, gradient norm {norm} at step {self.step}: {scalars}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if stage.adversary is not None:
            stage.adversary.update(lr_factor(self.step, self.optim))
        self.averages.update(self.step)
        self.step += 1
        return sums, norm

    def _backward(self, number: int) -> dict[str, Tensor]:
        """Gradients of one pass. accelerate deals micro batches to processes in turn: they are parts of one batch."""
        stage, processes = self.stage, self.accelerator.num_processes
        seed = derive_seed(self.config.run.seed, stage.seed_name, self.step)
        torch.manual_seed(seed)  # for whatever draws without asking `random`
        part = number * processes + self.accelerator.process_index
        random = BatchRandom.seeded(seed, part, self.passes * processes)
        with self.accelerator.autocast():
            terms = self.model(next(self.batches), self.step, random)
        total = torch.stack([stage.weights[k] * v.float() for k, v in terms.items() if k in stage.weights]).sum()
        self.accelerator.backward(total / self.passes)
        return {"total": total.detach()} | {name: value.detach() for name, value in terms.items()}

    def save(self, folder: Path, seconds: float) -> None:
        """Write the resumable state and the averaged modules; `seconds`: trained since the run was (re)started."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "trained": trained_state(self.stage.trained),
            "averaged": self.averages.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds + seconds,
            "settings": self._settings(),
            "history": self.history,
        }
        if self.stage.adversary is not None:
            state["adversary"] = self.stage.adversary.saved()
        save_state(folder / STATE, state)
        with self.averages.in_place():
            export(self.stage.trained, folder)

    def mean_over_processes(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Each value's mean; every process must ask."""
        stacked = torch.stack([value.float() for value in values.values()])
        means: Any = self.accelerator.reduce(stacked, "mean")
        return dict(zip(values, means.tolist(), strict=True))

    def agreed(self, flag: bool) -> bool:
        """Whether any process says so; all must ask."""
        if self.accelerator.num_processes == 1:
            return flag
        votes: Any = self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum")
        return bool(votes > 0)

    def _settings(self) -> dict[str, str]:
        """The settings that shape a run, flat, as text; folders may move."""
        table = dataclasses.asdict(self.config)
        parts = {key: table[key] for key in ("data", "autoencoder", "network")} | {"seed": self.config.run.seed}
        parts |= {f"stages.{self.stage.name}": table["stages"].get(self.stage.name, {})}
        return {key: repr(value) for key, value in _flat(parts) if key not in ("data.root", "data.cache")}


def run_stage(
    stage: Stage,
    config: Config,
    max_steps: int | None = None,
    resume: Path | None = None,
    deadline: float = math.inf,
    history: list[dict[str, Any]] | None = None,
) -> int:
    """Train `stage` until its last step (or for `max_steps` more, or until `deadline` on the monotonic clock).

    Returns the step reached.

    The folder config.run.dir/<stage> holds state.pt (resumable), the averaged modules as safetensors, log.jsonl and
    previews/. A state there is resumed; `resume` names another state to start from instead. `history` is what
    `init_from` gave for a new run.
    """
    settings, optim = config.run, stage.optim
    folder = stage_folder(Path(settings.dir), stage.name)
    (folder / "previews").mkdir(parents=True, exist_ok=True)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    precision = mixed_precision(settings.precision, device_type)
    accelerator = Accelerator(mixed_precision=precision, cpu=device_type == "cpu")
    run = Run(stage, config, accelerator)
    run.history = history or []
    if resume is not None or (folder / STATE).exists():
        run.resume(resume or folder / STATE)
    last = optim.steps if max_steps is None else min(optim.steps, run.step + max_steps)
    run.prepare()

    journal = None
    if accelerator.is_main_process:
        journal = RunLog(folder, stage.name, run.step, last, tensorboard=settings.tensorboard)

    def preview() -> None:
        if journal is None and not run.sharded:
            return  # where weights are spread, every process lends its share
        with run.averages.in_place():
            shown = stage.preview()
        if journal is not None:
            journal.validation(run.step, shown.figures)
            strip(shown.rows, folder / "previews" / f"{run.step:06d}.png")

    with Interrupted() as interrupted, journal or nullcontext():
        if run.step == 0 and settings.preview_every:
            preview()  # where a run with --init-from starts
        started = saved = time.monotonic()
        latest: dict[str, Tensor] = {}
        while run.step < last and not run.agreed(interrupted.requested or time.monotonic() > deadline):
            terms, norm = run.advance()
            latest |= terms  # a stage's terms may take turns
            now = time.monotonic()
            if run.step % settings.log_every == 0:
                means = run.mean_over_processes(latest)
                means |= {"grad_norm": norm, "seconds": run.seconds + now - started}
                if journal is not None:
                    journal.steps(run.step, optim.batch, means)
            if settings.preview_every and (run.step % settings.preview_every == 0 or run.step == last):
                preview()
            if now - saved > 60 * settings.save_minutes:
                run.save(folder, now - started)
                saved = now
        run.save(folder, time.monotonic() - started)
    accelerator.wait_for_everyone()
    if run.step >= optim.steps:
        log.info("%s: done, averaged weights are in %s", stage.name, folder)
    return run.step


def _flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return pairs
