"""A stage being trained: what is saved, what is resumed, one step.

Everything random is a pure function of (seed, step), so resuming needs only weights, averages, optimiser and the step.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
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
from ..config import Config
from ..config_stages import OptimConfig
from ..data.crops import derive_seed
from .interrupts import begin_worker
from .optimizers import make_optimizer, optimizer_of
from .rng import BatchRandom
from .sharding import leave_frozen_to_themselves, shard_frozen
from .stage import Stage
from .state import STATE, export, history_of, load_state, load_trained_state, save_state, trained_state

log = logging.getLogger(__name__)
WORKERS_START = "fork" if sys.platform == "linux" else None
"""How data workers start; None: the system's way. A worker ends with its parent, which must be the trainer: one that
a server of processes has forked would outlive a trainer that is killed."""
NOT_ITS_SHAPE = ("data.root", "data.cache", "adapter.checkpointing", "adapter.shard")
"""Settings that a run may change without becoming another: where files lie, what memory it takes."""


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
        if share % self.micro:
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
        kind = optimizer_of(state["optimizer"])
        if kind not in (None, self.optim.optimizer):
            raise AlloSR2Error(
                f"{path}: expected the state of optimizer {self.optim.optimizer!r}; got that of {kind!r}: set it "
                "back, or start a new run from the averaged modules with --init-from"
            )
        scales = [group["lr_scale"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, scale in zip(self.optimizer.param_groups, scales, strict=True):
            group["lr_scale"] = scale  # as configured, not as it was
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
            worker_init_fn=begin_worker,
            multiprocessing_context=WORKERS_START if data.workers else None,
        )
        self.model, self.optimizer, loader = self.accelerator.prepare(self.stage, self.optimizer, loader)
        self.batches = iter(loader)

    def advance(self) -> dict[str, Tensor]:
        """One step: weighted sum and terms, means over this process's samples; and the gradient's norm."""
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
        return sums | {"grad_norm": torch.tensor(norm, device=sums["total"].device)}

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

    def largest(self, value: int) -> int:
        """The largest of the processes' values; all must ask."""
        if self.accelerator.num_processes == 1:
            return value
        values: Any = self.accelerator.gather(torch.tensor([value], device=self.accelerator.device))
        return int(values.max())

    def _settings(self) -> dict[str, str]:
        """The settings that shape a run, flat, as text; folders may move."""
        table = dataclasses.asdict(self.config)
        parts = {key: table[key] for key in ("data", "adapter", "autoencoder", "network")}
        parts |= {"seed": self.config.run.seed, "precision": self.accelerator.mixed_precision}
        parts |= {"base": {key: _file(value) if key != "dtype" else value for key, value in table["base"].items()}}
        parts |= {f"stages.{self.stage.name}": table["stages"].get(self.stage.name, {})}
        return {key: repr(value) for key, value in _flat(parts) if key not in NOT_ITS_SHAPE}


def _file(path: str) -> str:
    """A file of a base, wherever it lies: its name and size."""
    return f"{Path(path).name}, {Path(path).stat().st_size} bytes" if path and Path(path).is_file() else Path(path).name


def _flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return pairs
