"""How fast the SR stage trains, and where a step's time goes.

python -m train throughput --config train/configs/mini.toml [--steps 20] [--preview]

Runs the real stage on real batches, made before the clock starts, without writing anything. Counts the floating-point
operations of a step (convolutions and matrix products, forward and backward), and measures what this machine reaches
on a large matrix product of the same precision: the ratio says how much of the machine a step uses. Says which
instructions the processor has for it, and what else bounds the figures ("bounded_by"). Run nothing beside it.
--preview measures two previews, the first of which makes what the later ones keep, and their share of a run's time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from pathlib import Path

import psutil
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

from ..arguments import counting
from ..config_file import load_config
from ..loop.optimizers import make_optimizer
from ..loop.precision import gemm_flops, instruction_set, mixed_precision
from ..loop.rng import BatchRandom
from ..stages.sr import SRStage

TOP = 12
BUSY = 0.3
"""Cores that others take from the step, from which figures are not those of the machine alone."""


class Stepper:
    """The stage's steps on prepared batches, as the loop makes them."""

    def __init__(self, stage: SRStage, precision: str, batches: int) -> None:
        self.stage, self.autocast = stage, mixed_precision(precision, "cpu") == "bf16"
        data, size = stage.dataset(0), stage.optim.batch
        self.batches = [default_collate([data[b * size + i] for i in range(size)]) for b in range(batches)]
        groups = [group | {"lr": 1e-6 * group["lr_scale"]} for group in stage.parameter_groups()]
        self.optimizer = make_optimizer(stage.optim, groups, torch.bfloat16 if self.autocast else torch.float32)

    def step(self, number: int) -> None:
        """Forward, backward, clip, update."""
        batch, stage = self.batches[number % len(self.batches)], self.stage
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            terms = stage(batch, number, BatchRandom.seeded(number))
        total = torch.stack([stage.weights[k] * v.float() for k, v in terms.items() if k in stage.weights]).sum()
        total.backward()
        torch.nn.utils.clip_grad_norm_(stage.trained.parameters(), stage.optim.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if stage.adversary is not None:
            stage.adversary.clip(stage.optim.grad_clip)
            stage.adversary.update(1e-3)


def measure(stepper: Stepper, steps: int) -> dict[str, float]:
    """Median seconds of a step, its FLOPs, and both against the machine's matrix product."""
    for number in range(2):
        stepper.step(number)  # warms up kernels and buffers
    with FlopCounterMode(display=False) as counter:
        stepper.step(0)
    seconds = []
    for number in range(steps):
        started = time.perf_counter()
        stepper.step(number)
        seconds.append(time.perf_counter() - started)
    median, peak = statistics.median(seconds), gemm_flops(torch.bfloat16 if stepper.autocast else torch.float32)
    flops = float(counter.get_total_flops())
    return {
        "seconds_per_step": median,
        "steps_per_s": 1 / median,
        "images_per_s": stepper.stage.optim.batch / median,
        "gflop_per_step": flops / 1e9,
        "gflops_per_s": flops / median / 1e9,
        "gemm_gflops_per_s": peak / 1e9,
        "share_of_gemm": flops / median / peak,
    }


def previews(stepper: Stepper, seconds_per_step: float, every: int) -> dict[str, float]:
    """Seconds of the first preview and of a later one, and the share of a run's time that later ones take."""
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=stepper.autocast):
            stepper.stage.preview()
        taken.append(time.perf_counter() - started)
    first, later = taken
    share = later / (later + every * seconds_per_step) if every else 0.0
    return {"seconds_of_first_preview": first, "seconds_of_preview": later, "share_of_previews": share}


class Beside:
    """How many of the cores that a process could compute on others took, between two calls."""

    def __init__(self, threads: int) -> None:
        self.threads, self.started = threads, self._now()

    def cores(self) -> float:
        """On average since it was made; 0 while there were cores enough for all."""
        wall, own, busy = (now - before for now, before in zip(self._now(), self.started, strict=True))
        others = max(0.0, busy - own) / wall
        return max(0.0, others + self.threads - (psutil.cpu_count() or 1))

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds: of the clock, of this process, and of all cores together that were not idle."""
        cpu = psutil.cpu_times()
        idle = cpu.idle + getattr(cpu, "iowait", 0.0) + getattr(cpu, "guest", 0.0)  # guests count as users too
        return time.perf_counter(), time.process_time(), sum(cpu) - idle


def bounds(instructions: str, precision: str, threads: int, cores: int, load: float) -> list[str]:
    """Why steps may take longer here than elsewhere, or than they could; empty where nothing is known.

    Args:
        instructions: see `instruction_set`.
        precision: accelerate's name of the one that the steps are made in.
        threads: that compute.
        cores: that this process may use.
        load: cores that other processes took away meanwhile (`Beside`).
    """
    why = []
    if precision != "bf16":
        asked = "is not asked for (run.precision)" if instructions in ("AMX", "AVX512-BF16") else "is not native here"
        why.append(f"fp32: bf16 {asked}; the processor's matrix products are {instructions}")
    elif instructions == "AVX512-BF16":
        why.append("bf16 by vectors (AVX512-BF16): the matrix units of AMX are several times as fast")
    if threads < cores:
        why.append(f"{threads} of {cores} cores compute (run.threads)")
    if load > BUSY:
        why.append(f"other processes took {load:.1f} cores: these figures are not those of the machine alone")
    return why


def hot_spots(stepper: Stepper, steps: int = 3) -> str:
    """The operators most time is spent in."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for number in range(steps):
            stepper.step(number)
    return profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=TOP, max_name_column_width=44)


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m train throughput", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("train/configs/mini.toml"))
    parser.add_argument("--steps", type=counting, default=20)
    parser.add_argument("--batches", type=counting, default=4, help="prepared batches, used in turn")
    parser.add_argument("--preview", action="store_true", help="also measure what a preview takes")
    parser.add_argument("--profile", action="store_true", help="also list the operators most time is spent in")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config)
    adversary = dataclasses.replace(config.stages.sr.adversary, start=0)
    later = dataclasses.replace(
        config.stages.sr, perceptual_from=0, atm_from=0, adversary=adversary
    )  # all terms are on
    config = dataclasses.replace(config, stages=dataclasses.replace(config.stages, sr=later))
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    stepper = Stepper(SRStage(config), config.run.precision, arguments.batches)
    beside = Beside(torch.get_num_threads())
    figures = measure(stepper, arguments.steps)
    load = beside.cores()
    if arguments.preview:
        figures |= previews(stepper, figures["seconds_per_step"], config.run.preview_every)
    instructions, threads = instruction_set(), torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    precision = "bf16" if stepper.autocast else "fp32"
    machine = {
        "instruction_set": instructions,
        "precision": precision,
        "threads": threads,
        "bounded_by": bounds(instructions, precision, threads, cores, load),
    }
    print(json.dumps(machine | {name: round(value, 4) for name, value in figures.items()}, indent=1))  # noqa: T201
    if arguments.profile:
        print(hot_spots(stepper))  # noqa: T201
    return 0
