"""How the SR stage does on the validation photographs: pairs, results and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from allosr2_core.losses.grain import grain_excess

from ..config import Config
from ..data.crops import decode_cached
from ..data.degradation import SCALE, degrade
from ..data.sources.photos import load_split
from ..loop.preview import busiest_crop, centre_crop, psnr
from ..metrics.lattice import LATTICE_PERIODS, checker_share, lattice, repeat

VALIDATION_SIDE = 256


@dataclass(frozen=True)
class Restored:
    """A validation pair after the one step. Pictures are [1, 3, H, W] in [0, 1]."""

    picture: Tensor
    """From the predicted time, as at inference."""
    four_steps: Tensor
    """The same in four Euler steps."""
    paired: Tensor
    """One step from the pair's own time."""
    decoded: Tensor
    """The photograph's own latent, decoded."""
    z_hr: Tensor
    t_error: float
    """Predicted time against the pair's own."""
    curvature: float


def validation_pairs(config: Config) -> dict[str, tuple[Tensor, Tensor]]:
    """Validation photograph -> (crop [1, 3, H, W], its version degraded at `real` [1, 3, H/4, W/4]), in [0, 1].

    Every other photograph by its busiest part: centres are mostly smooth; dots show on fur and grass.
    """
    paths = load_split(Path(config.data.root), "val")
    shown = [(path, centre_crop) for path in paths[::2]] + [(path, busiest_crop) for path in paths[1::2]]
    pairs = {}
    for number, (path, crop) in enumerate(shown):
        hr = crop(decode_cached(path, Path(config.data.cache)), VALIDATION_SIDE)
        pairs[path.name] = (hr, degrade(hr, "real", torch.Generator().manual_seed(number), SCALE))
    return pairs


def grid_periods(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[int]:
    """The periods of `metrics.lattice` that the smallest photograph is large enough for, px."""
    smallest = min(min(hr.shape[-2:]) for hr, _ in pairs)
    return [period for period in LATTICE_PERIODS if smallest > 4 * period]


def validation_figures(
    up: Tensor, hr: Tensor, result: Restored, distances: Mapping[str, nn.Module], periods: Sequence[int]
) -> dict[str, float]:
    """What a result shows beside its photograph and the bicubic enlargement `up`, both [1, 3, H, W] in [0, 1].

    `periods` of grids, px, are those that all pairs are large enough for (`grid_periods`).
    """
    figures = {
        "psnr": psnr(result.picture, hr),
        "psnr_paired": psnr(result.paired, hr),
        "psnr_bicubic": psnr(up, hr),
        "psnr_4steps": psnr(result.four_steps, hr),
        "psnr_decode": psnr(result.decoded, hr),
        "repeat4": float(repeat(result.picture, 4)),
        "repeat4_hr": float(repeat(hr, 4)),
        "checker": float(checker_share(result.picture)),
        "checker_hr": float(checker_share(hr)),
        "grain": float(grain_excess(result.picture.mul(2).sub(1), hr.mul(2).sub(1))["grain"]),
        "t_error": result.t_error,
        "curvature": result.curvature,
    }
    for period in periods:
        figures[f"lattice{period}"] = float(lattice(result.picture, period))
        figures[f"lattice{period}_hr"] = float(lattice(hr, period))
    for name, distance in distances.items():
        figures[name] = float(distance(result.picture, hr).mean())
        figures[f"{name}_bicubic"] = float(distance(up, hr).mean())
        figures[f"{name}_paired"] = float(distance(result.paired, hr).mean())
    return figures
