"""Do the frames of a video flicker? A still scene, each frame with damage of its own: the embedded checkpoint.

The centres of the photographs of tests/photos, enlarged as the video template does it, with a time t of each frame's
own, with one for all, and with two in turns, as jumping estimates would be. Figures are means over the photographs:
`apart` is the mean absolute difference between successive frames and `brightness` that of their mean values, both in
1/255; `crispness` is how much a frame's mean gradient varies from frame to frame (standard deviation over mean, in
percent); `t_range` is how far the frames' times lie apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.image.read import load_image
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from train.data.degradation import jpeg

from .measure import Row

BENCH = "flicker"
PHOTOS = Path(__file__).resolve().parent.parent / "tests" / "photos"
SIDE, QUICK_SIDE = 96, 48
"""px of the input."""
QUICK_FRAMES = 4
SCALE = 2.0
"""Of the video template."""
DAMAGE: Mapping[str, Sequence[tuple[float, int]]] = {
    "alike": [(6.0, 70)] * 8,
    "better key frames": [(6.0, 90), *[(6.0, 50)] * 3] * 2,
    "noise that changes": [(sigma, 90) for sigma in (2.0, 5.0, 10.0, 15.0, 15.0, 10.0, 5.0, 2.0)],
}
"""Standard deviation of the noise in 1/255, and quality of JPEG, of each frame."""
JUMPS = 0.1, 0.5
"""Times in turns."""


def run(quick: bool) -> Iterator[Row]:
    """For each kind of damage a row for each way to restore the frames."""
    side, count = (QUICK_SIDE, QUICK_FRAMES) if quick else (SIDE, None)
    scenes = [_centre(load_image(path).rgb_HWC, side) for path in sorted(PHOTOS.glob("*.jpg"))]
    pipeline = Pipeline.from_checkpoint(load_checkpoint(embedded_path()))
    for kind, damage in DAMAGE.items():
        found = [_figures(pipeline, _damaged(scene, damage[:count])) for scene in scenes[: 1 if quick else None]]
        for way in found[0]:
            rows = [figures[way] for figures in found]
            figures = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
            yield Row(BENCH, f"{kind}: {way}", f"{side} px", figures=figures)


def _centre(photo_HWC: Tensor, side: int) -> Tensor:
    top, left = ((size - side) // 2 for size in photo_HWC.shape[:2])
    return photo_HWC[top : top + side, left : left + side].movedim(-1, 0)[None]


def _damaged(scene_13HW: Tensor, damage: Sequence[tuple[float, int]]) -> Tensor:
    """The frames, [N, H, W, 3]."""
    rng, frames = torch.Generator().manual_seed(0), []
    for sigma, quality in damage:
        noise = torch.randn(scene_13HW.shape, generator=rng) * (sigma / 255.0)
        frames.append(jpeg(scene_13HW + noise, quality))
    return torch.cat(frames).movedim(1, -1)


def _figures(pipeline: Pipeline, frames_NHW3: Tensor) -> dict[str, dict[str, float]]:
    """By way of restoring them."""
    frames = frames_NHW3.split(1)
    own = [pipeline.predict_t(frame) for frame in frames]
    one = [statistics.mean(own)] * len(own)  # as SNR Timestep Estimate gives it
    ways = {
        "enlarged": (one, 0.0),
        "t of each frame": (own, 1.0),
        "one t": (one, 1.0),
        "one t, realism 0.5": (one, 0.5),
        "t in turns {} and {}".format(*JUMPS): ([*JUMPS] * (len(own) // 2), 1.0),
    }
    found = {}
    for way, (times, realism) in ways.items():
        options = [UpscaleOptions(scale=SCALE, t=t, realism=realism) for t in times]
        restored = [pipeline.upscale(frame, option) for frame, option in zip(frames, options, strict=True)]
        found[way] = {**_apart(torch.cat(restored)), "t_range": max(times) - min(times)}
    return found


def _apart(frames_NHW3: Tensor) -> dict[str, float]:
    across, down = (frames_NHW3.diff(dim=dim).abs().mean(dim=(1, 2, 3)) for dim in (1, 2))
    gradient_N = across + down
    return {
        "apart": 255.0 * float(frames_NHW3.diff(dim=0).abs().mean()),
        "brightness": 255.0 * float(frames_NHW3.mean(dim=(1, 2, 3)).diff().abs().mean()),
        "crispness": 100.0 * float(gradient_N.std() / gradient_N.mean()),
    }
