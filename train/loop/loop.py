"""The one training loop.

Everything random is a pure function of (seed, step), so resuming needs only weights, averages, optimiser and the step.
`optim.batch` is the batch of a step over all processes: under `accelerate launch` each takes its share of it, and the
run is the same one.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..config import Config
from .interrupts import Interrupted, Stopped
from .precision import mixed_precision
from .preview import strip
from .run import Run
from .run_log import Means, RunLog
from .stage import Stage
from .state import STATE, has_state, locked, stage_folder

log = logging.getLogger(__name__)


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
    with ExitStack() as open_things:
        interrupted = open_things.enter_context(Interrupted())
        if accelerator.is_main_process:
            open_things.enter_context(locked(folder))
        run = Run(stage, config, accelerator)
        run.history = history or []
        if resume is not None or has_state(folder):
            run.resume(resume or folder / STATE)
        last = optim.steps if max_steps is None else min(optim.steps, run.step + max_steps)
        run.prepare()
        journal = None
        if accelerator.is_main_process:
            said = RunLog(folder, stage.name, run.step, last, settings.preview_every, tensorboard=settings.tensorboard)
            journal = open_things.enter_context(said)
        number = _train(run, folder, last, deadline, interrupted, journal)
    accelerator.wait_for_everyone()
    if number:
        raise Stopped(f"{stage.name}: stopped at step {run.step}, saved; the same command goes on from there", number)
    if run.step >= optim.steps:
        log.info("%s: done, averaged weights are in %s", stage.name, folder)
    return run.step


def _train(run: Run, folder: Path, last: int, deadline: float, interrupted: Interrupted, journal: RunLog | None) -> int:
    """The steps up to `last`, `deadline` or a signal, whose number is returned (0: none came). Saves at the end."""
    settings, means = run.config.run, Means()

    def preview() -> None:
        if journal is None and not run.sharded:
            return  # where weights are spread, every process lends its share
        began = time.monotonic()
        with run.averages.in_place(), run.accelerator.autocast():
            # one process of several must not leave the others waiting for its share
            shown = run.stage.preview() if run.sharded else interrupted.unless(run.stage.preview)
        if journal is not None and shown is not None:
            strip(shown.rows, folder / "previews" / f"{run.step:06d}.png")
            journal.validation(run.step, shown.figures, time.monotonic() - began)

    started = saved = time.monotonic()
    if run.step == 0 and settings.preview_every:
        preview()  # where a run with --init-from starts
        started = saved = time.monotonic()
    while run.step < last and not run.largest(max(interrupted.number, int(time.monotonic() > deadline))):
        means.add(run.advance())
        now = time.monotonic()
        if run.step % settings.log_every == 0 or run.step == last:
            values = run.mean_over_processes(means.take()) | {"seconds": run.seconds + now - started}
            if journal is not None:
                journal.steps(run.step, run.optim.batch, values)
        if settings.preview_every and (run.step % settings.preview_every == 0 or run.step == last):
            preview()
        if now - saved > 60 * settings.save_minutes:
            run.save(folder, now - started)
            saved = now
    run.save(folder, time.monotonic() - started)
    return run.largest(interrupted.number)
