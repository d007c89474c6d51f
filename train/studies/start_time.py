"""Is the time right, and does it matter? The SNR head against the paired t*, and quality over the time one starts at.

python -m train snr --split val [--checkpoint FILE] [--strength real,severe] [--limit 8] [--out docs/snr.svg]

For every photograph and strength: log rho of the pair and as the head guesses it; PSNR-Y and ST-LPIPS (vgg) from the
calibrated, the predicted and the paired time, and from multiples of the paired one. Prints Markdown; --out draws it.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically
from allosr2_core.finish import Target
from allosr2_core.pipeline import Backend, Pipeline, encode, finish, prepare, step
from allosr2_core.start_time import estimate_t

from ..arguments import choices, counting
from ..data.degradation import SCALE, STRENGTHS
from ..data.sources.photos import load_split
from ..evaluate.crops import evenly, load_photos, low_resolution
from ..metrics import psnr_y, quantise
from ..perceptual.networks import load_st_lpips

log = logging.getLogger(__name__)
FACTORS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.45, 2.0)
"""Multiples of the paired t* that the sweep starts from."""
METHODS = ("calibrated", "predicted", "paired")


@dataclass(frozen=True)
class Measurement:
    """One photograph at one strength."""

    photo: str
    strength: str
    log_rho: float
    """Of the pair, natural logarithm."""
    log_rho_predicted: float
    t: dict[str, float]
    """By method, within the trained range."""
    psnr: dict[str, float]
    """dB, by method and by factor ("x0.5" ...)."""
    st_lpips: dict[str, float]


Distance = Callable[[Tensor], Tensor]
"""Of a result from its photograph."""


def encode_pair(upscaler: Pipeline, base: Backend, lr: Tensor, hr: Tensor) -> tuple[Target, Tensor, Tensor]:
    """What the result will be put into, z_L and z_H of a pair, [1, 3, H, W] in [0, 1]; `base` as in `measure_pair`."""
    target = prepare(lr.permute(0, 2, 3, 1), upscaler.config, scale=SCALE)
    truth = target.layout.window(hr.permute(0, 2, 3, 1))
    z_lr = encode(upscaler.backend, upscaler.config, target.layout, target.window())
    return target, z_lr, encode(base, upscaler.config, target.layout, truth)


@torch.inference_mode()
def measure_pair(
    upscaler: Pipeline, base: Backend, lr: Tensor, hr: Tensor, distance: Distance, factors: Sequence[float]
) -> tuple[dict[str, float], dict[str, float], dict[str, dict[str, float]]]:
    """({"paired", "predicted": log rho}, t by method, {"psnr", "st_lpips": values by start}).

    lr, hr: [1, 3, H, W] in [0, 1]. `base`: the backend whose encoder is the untuned one; z_H is its, as in training.
    """
    config = upscaler.config
    target, z_lr, z_hr = encode_pair(upscaler, base, lr, hr)
    estimates = {method: estimate_t(z_lr, config, upscaler.head, method, z_hr=z_hr) for method in METHODS}
    starts = {method: estimate.t for method, estimate in estimates.items()}
    starts |= {f"x{factor:g}": config.clamp_t(estimates["paired"].t * factor) for factor in factors}
    quality: dict[str, dict[str, float]] = {"psnr": {}, "st_lpips": {}}
    done: dict[float, tuple[float, float]] = {}
    for name, t in starts.items():
        at = float(t)
        if at not in done:
            z = step(upscaler.backend.velocity, z_lr, t, config)
            sr = quantise(finish(upscaler.backend, config, z, target)[None].permute(0, 3, 1, 2))
            done[at] = (float(psnr_y(sr, hr)), float(distance(sr).mean()))
        quality["psnr"][name], quality["st_lpips"][name] = done[at]
    rho = {method: math.log(float(estimates[method].rho)) for method in ("paired", "predicted")}
    return rho, {method: float(starts[method]) for method in METHODS}, quality


def share_of_photos(found: Sequence[Measurement]) -> float:
    """Intraclass correlation of log rho: how much of its variance lies between photographs, not between degradations.

    Near 1: rho tells how much detail a photograph has, of which its degraded version keeps little; a head that sees
    only z_L cannot know it. One-way random effects; NaN without two photographs of the same number of pairs, two each.
    """
    photos = list(dict.fromkeys(m.photo for m in found))
    groups = [[m.log_rho for m in found if m.photo == photo] for photo in photos]
    pairs = len(groups[0])
    if len(groups) < 2 or pairs < 2 or any(len(group) != pairs for group in groups):
        return math.nan
    between = pairs * statistics.variance([statistics.fmean(group) for group in groups])
    within = statistics.fmean(statistics.variance(group) for group in groups)
    whole = between + (pairs - 1) * within
    return (between - within) / whole if whole else math.nan


def table(found: Sequence[Measurement]) -> str:
    """Markdown: how well the head guesses, and the quality of each start, by strength and over all."""
    lines = [
        "| strength | pairs | correlation of log rho | median abs(t - t*) | mean |",
        "|---|---:|---:|---:|---:|",
    ]
    groups = {strength: [m for m in found if m.strength == strength] for strength in STRENGTHS}
    groups = {name: group for name, group in groups.items() if group} | {"all": list(found)}
    for name, group in groups.items():
        errors = [abs(m.t["predicted"] - m.t["paired"]) for m in group]
        pairs = torch.tensor([[m.log_rho, m.log_rho_predicted] for m in group], dtype=torch.float64).T
        correlation = float(torch.corrcoef(pairs)[0, 1]) if len(group) > 1 else math.nan
        figures = f"{correlation:.3f} | {statistics.median(errors):.3f} | {statistics.fmean(errors):.3f}"
        lines.append(f"| {name} | {len(group)} | {figures} |")
    share = share_of_photos(found)
    lines += [
        "",
        f"Share of the variance of log rho that lies between photographs (intraclass correlation): {share:.2f}",
    ]
    starts = list(found[0].psnr)
    lines += ["", f"| strength | {' | '.join(starts)} |", "|---|" + "---:|" * len(starts)]
    for name, group in groups.items():
        cells = [
            f"{statistics.fmean(m.psnr[s] for m in group):.2f} / {statistics.fmean(m.st_lpips[s] for m in group):.3f}"
            for s in starts
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: Sequence[Measurement], factors: Sequence[float], path: Path) -> None:
    """Guess against pair, and quality over the start, one line per strength; the methods as marks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    scatter, psnr_axis, distance_axis = figure.subplots(1, 3)
    colours = dict(zip(STRENGTHS, ("#2a7f62", "#1f4e8c", "#a63d40"), strict=True))
    marks = dict(zip(METHODS, ("s", "o", "*"), strict=True))
    for strength, colour in colours.items():
        group = [m for m in found if m.strength == strength]
        if not group:
            continue
        scatter.scatter(
            [m.log_rho for m in group], [m.log_rho_predicted for m in group], s=12, color=colour, label=strength
        )
        for axis, field in ((psnr_axis, "psnr"), (distance_axis, "st_lpips")):
            means = [statistics.fmean(getattr(m, field)[f"x{factor:g}"] for m in group) for factor in factors]
            axis.plot(factors, means, color=colour, label=strength)
            for method, mark in marks.items():
                where = statistics.fmean(m.t[method] / m.t["paired"] for m in group)
                axis.plot(where, statistics.fmean(getattr(m, field)[method] for m in group), mark, color=colour)
    ends = [value for m in found for value in (m.log_rho, m.log_rho_predicted)]
    scatter.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#999999", linewidth=0.8)
    scatter.set(xlabel="log rho of the pair", ylabel="log rho, predicted", title="SNR head")
    psnr_axis.set(
        xlabel="start over paired t*", ylabel="PSNR-Y, dB", title="square: calibrated, dot: predicted, star: paired"
    )
    distance_axis.set(xlabel="start over paired t*", ylabel="ST-LPIPS (vgg)", title="lower is closer")
    scatter.legend()
    kind = path.suffix.lstrip(".")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=kind))


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m train snr", description=__doc__)
    parser.add_argument("--split", default="val")
    parser.add_argument("--checkpoint", type=Path, default=embedded_path())
    parser.add_argument("--strength", type=choices(STRENGTHS), default=STRENGTHS)
    parser.add_argument("--limit", type=counting, help="at most so many photographs, evenly spread")
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--json", type=Path, help="write every measurement there")
    parser.add_argument("--out", type=Path, help="draw the figure there (.svg or .png)")
    arguments = parser.parse_args(argv)
    checkpoint, st_lpips = load_checkpoint(arguments.checkpoint), load_st_lpips("vgg", arguments.root)
    upscaler, base = Pipeline.from_checkpoint(checkpoint), Pipeline.from_checkpoint(checkpoint, strength=0.0).backend
    found = []
    for photo in load_photos(evenly(load_split(arguments.root / "photos", arguments.split), arguments.limit)):
        distance = st_lpips.against(photo.hr)
        for strength in arguments.strength:
            lr = low_resolution(photo, strength)
            rho, t, quality = measure_pair(upscaler, base, lr, photo.hr, distance, FACTORS)
            found.append(Measurement(photo.name, strength, rho["paired"], rho["predicted"], t, **quality))
            log.info("%s %s: t* %.3f, predicted %.3f", photo.name, strength, t["paired"], t["predicted"])
    if not found:
        raise AlloSR2Error(f"expected photographs of at least the metrics' size in {arguments.split}; there are none")
    if arguments.json:
        text = json.dumps([asdict(m) for m in found], indent=1)
        write_atomically(arguments.json, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    if arguments.out:
        draw(found, FACTORS, arguments.out)
    print(table(found))  # noqa: T201 - the table is the result
    return 0
