"""The one training loop: every stage is a module whose forward returns named loss terms.

Everything random is a pure function of (seed, step), so resuming needs only weights, averages, optimiser and the step.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import signal
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from allosr2_core.errors import AlloSR2Error

from .config import Config, OptimConfig
from .data import mix_seed

log = logging.getLogger(__name__)


class Stage(nn.Module, ABC):
    """One training problem. Trained modules live in `trained`; everything else in the stage is frozen."""

    name: ClassVar[str]
    trained: nn.ModuleDict
    optim: OptimConfig

    @abstractmethod
    def dataset(self, start: int) -> Dataset:
        """The run's remaining samples, from index `start`."""

    @abstractmethod
    def forward(self, batch: dict[str, Tensor], step: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Named, unweighted loss terms (scalars); terms without a weight are logged only."""

    @property
    @abstractmethod
    def weights(self) -> dict[str, float]:
        """Weight of each term that is optimised."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups; `lr_scale` multiplies the stage's learning rate."""
        return [{"params": list(self.trained.parameters()), "lr_scale": 1.0}]

    def averaged_copy(self) -> nn.ModuleDict:
        """A copy of the trained modules to hold their moving average."""
        return copy.deepcopy(self.trained)

    @abstractmethod
    def preview(self, averaged: nn.ModuleDict, folder: Path, step: int) -> dict[str, float]:
        """Write pictures made with the averaged weights; return validation figures for the log."""


def lr_factor(step: int, optim: OptimConfig) -> float:
    """Warm-up, constant, linear decay to zero over the last `decay` steps."""
    rise = min(1.0, (step + 1) / max(1, optim.warmup))
    fall = min(1.0, (optim.steps - step) / max(1, optim.decay))
    return min(rise, fall)


def write_atomically(path: Path, state: dict[str, Any]) -> None:
    """torch.save to a temporary file, fsync, rename: a kill leaves the old or the new file, never half of one."""
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def export(averaged: nn.ModuleDict, folder: Path) -> None:
    """Write each averaged module as folder/<name>.safetensors, atomically: what the next stage starts from."""
    for name, module in averaged.items():
        temporary = folder / f"{name}.tmp"
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, temporary)
        temporary.replace(folder / f"{name}.safetensors")


def load_export(module: nn.Module, path: Path) -> None:
    """Fill a module from a stage's export. AlloSR2Error says which command makes a missing file."""
    if not path.exists():
        raise AlloSR2Error(f"expected {path}; run `python -m train {path.parent.name}` first")
    module.load_state_dict(load_file(path))


class Interrupted:
    """Turns the first SIGINT or SIGTERM into a flag, so that the loop can save before it ends."""

    def __init__(self) -> None:
        self.requested = False

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True

    def __enter__(self) -> Interrupted:
        self._before = {s: signal.signal(s, self._request) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Averages:
    """Exponential moving average of the trained modules; warms up so that early steps are forgotten quickly."""

    def __init__(self, module: nn.ModuleDict, decay: float) -> None:
        self.module = module.requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, trained: nn.ModuleDict, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = list(self.module.parameters()), list(trained.parameters())
        torch._foreach_lerp_(ours, [p.detach() for p in theirs], 1.0 - decay)


def init_from(stage: Stage, folder: Path) -> None:
    """Start from another run's averaged modules, those of the same name; a new optimiser, step 0."""
    found = [name for name in stage.trained if (folder / f"{name}.safetensors").exists()]
    if not found:
        names = ", ".join(f"{name}.safetensors" for name in stage.trained)
        raise AlloSR2Error(f"expected one of {names} in {folder}; there is none")
    for name in found:
        stage.trained[name].load_state_dict(load_file(folder / f"{name}.safetensors"))
    log.info("%s: initialised %s from %s", stage.name, ", ".join(found), folder)


def run_stage(stage: Stage, config: Config, max_steps: int | None = None) -> int:
    """Train `stage` until its last step (or for `max_steps` more), resuming from its folder. Returns the step reached.

    The folder config.run.dir/<stage> holds state.pt (resumable), the averaged modules as safetensors, log.jsonl and
    previews/.
    """
    run, optim = config.run, stage.optim
    folder = Path(run.dir) / stage.name
    (folder / "previews").mkdir(parents=True, exist_ok=True)
    if run.threads:
        torch.set_num_threads(run.threads)
    accelerator = Accelerator(mixed_precision=run.precision, cpu=not torch.cuda.is_available())
    groups = stage.parameter_groups()
    for group in groups:
        group["lr"] = optim.lr * group["lr_scale"]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    averages = Averages(stage.averaged_copy(), optim.ema)

    step, spent, state_path = 0, 0.0, folder / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, map_location="cpu", weights_only=True)
        stage.trained.load_state_dict(state["trained"])
        averages.module.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["seconds"]
        log.info("%s: resumed at step %d (%.1f min trained)", stage.name, step, spent / 60)
    last = optim.steps if max_steps is None else min(optim.steps, step + max_steps)
    loader = DataLoader(
        stage.dataset(step * optim.batch),
        batch_size=optim.batch,
        num_workers=config.data.workers,
        drop_last=True,
        prefetch_factor=4 if config.data.workers else None,
        worker_init_fn=_leave_interrupts_to_the_loop,
    )
    model, optimizer, loader = accelerator.prepare(stage, optimizer, loader)

    def save(now: float) -> None:
        if accelerator.is_main_process:
            bare = accelerator.unwrap_model(model)
            write_atomically(
                state_path,
                {
                    "trained": bare.trained.state_dict(),
                    "averaged": averages.module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "seconds": spent + now - started,
                },
            )
            export(averages.module, folder)

    batches = iter(loader)
    with Interrupted() as interrupted, (folder / "log.jsonl").open("a", encoding="utf-8") as log_file:

        def preview() -> None:
            figures = stage.preview(averages.module, folder / "previews", step)
            log_file.write(json.dumps({"step": step} | {f"val_{k}": round(v, 5) for k, v in figures.items()}) + "\n")
            log_file.flush()
            log.info("%s %d val %s", stage.name, step, " ".join(f"{k} {v:.4g}" for k, v in figures.items()))

        if step == 0 and accelerator.is_main_process:
            preview()  # where a run with --init-from starts
        started = saved = window = time.monotonic()
        window_step = step
        while step < last and not interrupted.requested:
            for group in optimizer.param_groups:
                group["lr"] = optim.lr * group["lr_scale"] * lr_factor(step, optim)
            rng = torch.Generator().manual_seed(mix_seed(run.seed, stage.name, step, accelerator.process_index))
            with accelerator.autocast():
                terms = model(next(batches), step, rng)
            total = torch.stack([stage.weights[k] * v.float() for k, v in terms.items() if k in stage.weights]).sum()
            accelerator.backward(total)
            norm = accelerator.clip_grad_norm_(stage.trained.parameters(), optim.grad_clip)
            if not (torch.isfinite(total) and math.isfinite(float(norm))):  # before the weights are touched
                what = f"loss {float(total.detach())}, gradient norm {float(norm)}"
                raise AlloSR2Error(f"{stage.name}: {what} at step {step}: {_scalars(terms)}")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            averages.update(stage.trained, step)
            step += 1

            now = time.monotonic()
            if step % run.log_every == 0 and accelerator.is_main_process:
                rate = (step - window_step) / (now - window)
                line: dict[str, float] = {"step": step, "total": float(total.detach()), **_scalars(terms)}
                line |= {"grad_norm": float(norm), "steps_per_s": rate, "seconds": spent + now - started}
                log_file.write(json.dumps({k: round(v, 6) for k, v in line.items()}) + "\n")
                log_file.flush()
                eta = (last - step) / rate / 60
                summary = " ".join(f"{k} {v:.4g}" for k, v in line.items() if k not in ("step", "seconds"))
                log.info("%s %d/%d %s eta %.0f min", stage.name, step, last, summary, eta)
                window, window_step = now, step
            if (step % run.preview_every == 0 or step == last) and accelerator.is_main_process:
                preview()
                window, window_step = time.monotonic(), step
            if now - saved > 60 * run.save_minutes:
                save(now)
                saved = now
    save(time.monotonic())
    if step >= optim.steps:
        log.info("%s: done, averaged weights are in %s", stage.name, folder)
    return step


def _leave_interrupts_to_the_loop(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the loop saves, so its data workers must outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _scalars(terms: dict[str, Tensor]) -> dict[str, float]:
    return {k: float(v.detach()) for k, v in terms.items()}
