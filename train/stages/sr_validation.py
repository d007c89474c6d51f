"""How the SR stage does on the validation photographs: pairs, results and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allosr2_core.losses.grain import grain_excess

from ..config import Config
from ..data.degradation import SCALE, degrade
from ..data.photo_files import decode_all
from ..data.sources.photos import load_split
from ..loop.preview import busiest_crop, centre_crop, psnr
from ..metrics.lattice import LATTICE_PERIODS, checker_share, lattice, repeat
from ..perceptual.distances import FeatureDistance, Maps
from ..perceptual.networks import FeatureNetwork

VALIDATION_SIDE = 256
KEPT = 32
"""Pairs whose features stay in memory between previews, some 75 MB each in fp32; those of others are made anew."""


@dataclass(frozen=True)
class Pair:
    """A validation pair and what training does not change of it, on the stage's device but for the features.

    Pictures are [1, 3, H, W] in [0, 1].
    """

    hr: Tensor
    lr: Tensor
    """[1, 3, H/4, W/4]."""
    up: Tensor
    """`lr` enlarged bicubically."""
    z_hr: Tensor
    features: Mapping[FeatureNetwork, Maps]
    """Of `hr`, in the processor's memory; empty where they are not kept."""
    figures: Mapping[str, float]
    """Of `hr`, and of `up` beside it."""


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
    t_error: float
    """Predicted time against the pair's own."""
    curvature: float


def validation_pairs(config: Config) -> dict[str, tuple[Tensor, Tensor]]:
    """Validation photograph -> (crop [1, 3, H, W], its version degraded at `real` [1, 3, H/4, W/4]), in [0, 1].

    Every other photograph by its busiest part: centres are mostly smooth; dots show on fur and grass.
    """
    root = Path(config.data.root)
    paths = load_split(root, "val")
    crops = {path: centre_crop for path in paths[::2]} | {path: busiest_crop for path in paths[1::2]}
    photos, pairs = decode_all(list(crops), Path(config.data.cache)), {}
    for number, (path, crop) in enumerate(crops.items()):
        if path in photos:
            hr = crop(photos[path], VALIDATION_SIDE)
            name = path.relative_to(root / "val").as_posix()
            pairs[name] = (hr, degrade(hr, "real", torch.Generator().manual_seed(number), SCALE))
    return pairs


def grid_periods(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[int]:
    """The periods of `metrics.lattice` that the smallest photograph is large enough for, px."""
    smallest = min(min(hr.shape[-2:]) for hr, _ in pairs)
    return [period for period in LATTICE_PERIODS if smallest > 4 * period]


def features_of(picture: Tensor, distances: Mapping[str, FeatureDistance]) -> dict[FeatureNetwork, Maps]:
    """Features of a picture in every network of the distances, each network run once."""
    return {network: network.features(picture) for network in {d.network: None for d in distances.values()}}


def moved(features: Mapping[FeatureNetwork, Maps], device: torch.device) -> dict[FeatureNetwork, Maps]:
    """The same on a device."""
    return {network: [level.to(device) for level in maps] for network, maps in features.items()}


def _compared(
    of: Mapping[FeatureNetwork, Maps], to: Mapping[FeatureNetwork, Maps], distances: Mapping[str, FeatureDistance]
) -> dict[str, float]:
    return {name: float(d.distance(of[d.network], to[d.network]).mean()) for name, d in distances.items()}


def constant_figures(
    up: Tensor,
    hr: Tensor,
    features: Mapping[FeatureNetwork, Maps],
    distances: Mapping[str, FeatureDistance],
    periods: Sequence[int],
) -> dict[str, float]:
    """What a photograph and its bicubic enlargement show, [1, 3, H, W] in [0, 1]; see `validation_figures`.

    `features`: of the photograph.
    """
    bicubic = _compared(features_of(up, distances), features, distances)
    with torch.autocast(hr.device.type, enabled=False):
        figures = {
            "psnr_bicubic": psnr(up, hr),
            "repeat4_hr": float(repeat(hr, 4)),
            "checker_hr": float(checker_share(hr)),
        }
        figures |= {f"lattice{period}_hr": float(lattice(hr, period)) for period in periods}
    return figures | {f"{name}_bicubic": value for name, value in bicubic.items()}


def validation_figures(
    pair: Pair, result: Restored, distances: Mapping[str, FeatureDistance], periods: Sequence[int]
) -> dict[str, float]:
    """What a result shows beside its photograph; networks run in the type of autocast, all else in fp32.

    `periods` of grids, px, are those that all pairs are large enough for (`grid_periods`).
    """
    hr, features = pair.hr, moved(pair.features, pair.hr.device) or features_of(pair.hr, distances)
    near = _compared(features_of(result.picture, distances), features, distances)
    paired = _compared(features_of(result.paired, distances), features, distances)
    with torch.autocast(hr.device.type, enabled=False):
        figures = {
            "psnr": psnr(result.picture, hr),
            "psnr_paired": psnr(result.paired, hr),
            "psnr_4steps": psnr(result.four_steps, hr),
            "psnr_decode": psnr(result.decoded, hr),
            "repeat4": float(repeat(result.picture, 4)),
            "checker": float(checker_share(result.picture)),
            "grain": float(grain_excess(result.picture.mul(2).sub(1), hr.mul(2).sub(1))["grain"]),
            "t_error": result.t_error,
            "curvature": result.curvature,
        }
        figures |= {f"lattice{period}": float(lattice(result.picture, period)) for period in periods}
    return dict(pair.figures) | figures | near | {f"{name}_paired": value for name, value in paired.items()}
