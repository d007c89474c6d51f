"""Is the one step's path straight, and is the trained flow still the generative one?

    python -m train trajectory --split val [--checkpoint FILE] [--strength real,severe] [--reduce 2] [--limit 8]

A row per strength, means over the photographs: PSNR-Y and ST-LPIPS (vgg) of the result in 1, 2 and 4 Euler steps from
the time that is guessed, and the curvature C of the path from the pair's own time, at half of it. On a straight path
steps change nothing and C is 0. The last line is the flow-matching error of the trained flow on the photographs'
latents, beside the untouched prior's: the drift.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import euler, start_state
from allosr2_core.losses.fatc import curvature
from allosr2_core.pipeline import Backend, Pipeline, finish
from allosr2_core.start_time import estimate_t

from ..arguments import choices, counting
from ..data.degradation import STRENGTHS
from ..data.sources.photos import load_split
from ..evaluate.crops import CROP_MINIMUM, evenly, load_photos, low_resolution
from ..metrics import psnr_y, quantise
from ..perceptual.networks import load_st_lpips
from ..stages.prior import flow_matching_error
from .start_time import Distance, encode_pair

log = logging.getLogger(__name__)
STEPS = (1, 2, 4)


@dataclass(frozen=True)
class Measurement:
    """One photograph at one strength."""

    psnr: dict[int, float]
    """dB, by number of steps."""
    st_lpips: dict[int, float]
    curvature: float


@torch.inference_mode()
def measure(
    upscaler: Pipeline, base: Backend, lr: Tensor, hr: Tensor, distance: Distance
) -> tuple[Measurement, Tensor]:
    """The figures of a pair, and the photograph's latent z_H.

    lr, hr: [1, 3, H, W] in [0, 1]. `base`: the backend whose encoder is the untuned one; z_H is its, as in training.
    """
    config, velocity = upscaler.config, upscaler.backend.velocity
    target, z_lr, z_hr = encode_pair(upscaler, base, lr, hr)
    t = estimate_t(z_lr, config, upscaler.head, "predicted").t
    psnr, st_lpips = {}, {}
    for steps in STEPS:
        z = euler(velocity, start_state(z_lr, t, config.init), t, steps)
        sr = quantise(finish(upscaler.backend, config, z, target)[None].permute(0, 3, 1, 2))
        psnr[steps], st_lpips[steps] = float(psnr_y(sr, hr)), float(distance(sr).mean())
    t_paired = estimate_t(z_lr, config, upscaler.head, "paired", z_hr=z_hr).t
    bend = float(curvature(velocity, z_hr, z_lr, t_paired, 0.5 * t_paired, config.init))
    return Measurement(psnr, st_lpips, bend), z_hr


def header() -> list[str]:
    """The first two lines of the table."""
    titles = [f"{name}, {steps} step{'s' * (steps > 1)}" for name in ("PSNR-Y", "ST-LPIPS") for steps in STEPS]
    return [f"| strength | {' | '.join(titles)} | curvature C |", "|---|" + "---:|" * (len(titles) + 1)]


def row(strength: str, found: Sequence[Measurement]) -> str:
    """A strength's line: means."""
    cells = [f"{statistics.fmean(m.psnr[steps] for m in found):.2f}" for steps in STEPS]
    cells += [f"{statistics.fmean(m.st_lpips[steps] for m in found):.4f}" for steps in STEPS]
    return f"| {strength} | {' | '.join(cells)} | {statistics.fmean(m.curvature for m in found):.3f} |"


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m train trajectory", description=__doc__)
    parser.add_argument("--split", default="val", help="photos of this split (default: val)")
    parser.add_argument("--checkpoint", type=Path, default=embedded_path(), help="default: the embedded checkpoint")
    parser.add_argument("--strength", type=choices(STRENGTHS), default=STRENGTHS, help=f"of {','.join(STRENGTHS)}")
    parser.add_argument("--reduce", type=counting, default=1, help="large photos are first made so many times smaller")
    parser.add_argument("--limit", type=counting, help="at most so many photographs, evenly spread")
    parser.add_argument("--root", type=Path, default=Path("data"), help="data folder (default: data)")
    args = parser.parse_args(argv)
    checkpoint = load_checkpoint(args.checkpoint)
    upscaler, base = Pipeline.from_checkpoint(checkpoint), Pipeline.from_checkpoint(checkpoint, strength=0.0).backend
    photos = list(load_photos(evenly(load_split(args.root / "photos", args.split), args.limit), args.reduce))
    if not photos:
        raise AlloSR2Error(f"expected photographs of {CROP_MINIMUM} px or more in {args.split}; there are none")
    st_lpips, lines, latents = load_st_lpips("vgg", args.root), header(), []
    distances = [st_lpips.against(photo.hr) for photo in photos]
    for strength in args.strength:
        found = []
        for photo, distance in zip(photos, distances, strict=True):
            measured, z_hr = measure(upscaler, base, low_resolution(photo, strength), photo.hr, distance)
            found.append(measured)
            latents += [z_hr] * (strength == args.strength[0])
            log.info("%s %s: C %.3f", photo.name, strength, measured.curvature)
        lines.append(row(strength, found))
    trained, prior = (flow_matching_error(flow, latents) for flow in (upscaler.backend.velocity, base.velocity))
    lines += ["", f"Flow-matching error: {trained:.3f}; of the untouched prior: {prior:.3f}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
