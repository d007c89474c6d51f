"""Pictures as tensors and the options of an upscale: each is right, or refused in one line before any work.

The network is a tiny one with random weights. Right is: the size that was asked for, to the pixel; finite, in 0..1,
float32, an ordinary tensor; of a batch each picture as it is alone, to the bit; where a mask is black, the plain
enlargement; the given tensors as they were.
"""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from allosr2_core.checkpoint.format import load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.geometry import resize_bicubic
from allosr2_core.options import COLOR_METHODS, UpscaleOptions
from allosr2_core.pipeline import Pipeline
from tests.support.command_line import save_tiny_checkpoint

from .suites import Limits, cases

SIZES = ((1, 1), (1, 2), (2, 1), (1, 63), (5, 7), (9, 14), (16, 16), (17, 31), (33, 64), (64, 65), (90, 40), (127, 3))
LONG = ((17, 3000), (3000, 17), (1, 3000), (700, 90))
WRONG_OPTIONS: tuple[dict[str, Any], ...] = (
    {"realism": -0.5},
    {"realism": 1e39},
    {"realism": float("nan")},
    {"scale": 0.0},
    {"scale": -1.0},
    {"scale": 1e308},
    {"scale": float("inf")},
    {"scale": 70000.0},
    {"long_edge": 0},
    {"long_edge": 10**30},
    {"tile": -1},
    {"overlap": -64},
    {"t": 0.0},
    {"t": 1.0},
    {"t": float("nan")},
    {"t": "paired"},
    {"color": "hsv"},
    {"scale": None, "long_edge": None},
)
WRONG_VALUES = (-5.0, 1e38, 255.0, float("nan"), float("inf"), float("-inf"))
FLOATS = (torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64)
WHOLE = (torch.uint8, torch.int64, torch.int32, torch.bool)


@functools.cache
def pipeline() -> Pipeline:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        save_tiny_checkpoint(path)
        return Pipeline.from_checkpoint(load_checkpoint(path))


def options(rng: random.Random, height: int, width: int) -> dict[str, Any]:
    chosen: dict[str, Any] = {"scale": rng.choice((1.0, 1.5, 2.0, 3.0, 4.0, 4.0, 5.7, 8.0, 0.3, rng.uniform(1, 8)))}
    if rng.random() < 0.2:
        chosen = {"long_edge": rng.randint(1, 8 * max(height, width))}
    chosen["t"] = rng.choice((None, None, 0.2, 0.95, 1e-6, "predicted", "calibrated"))
    chosen["realism"] = rng.choice((1.0, 1.0, 0.0, 0.5, 2.0, 100.0))
    tiles = (0, 0, 1, 64, 100, 8192, 10**30) if max(height, width) < 200 else (0, 0, 256, 8192, 10**30)
    chosen["tile"] = rng.choice(tiles)
    chosen["overlap"] = rng.choice((64, 0, 16, 10**30))
    chosen["color"] = rng.choice(tuple(COLOR_METHODS))
    chosen["shifted"] = rng.random() < 0.3
    return chosen


def strided(image: Tensor, rng: random.Random) -> Tensor:
    """The same values, otherwise in memory."""
    kind = rng.randrange(5)
    if kind == 0:
        return image.movedim(-1, 1).contiguous().movedim(1, -1)
    if kind == 1:
        wider = image.new_zeros([2 * side for side in image.shape])
        wider[::2, ::2, ::2, ::2] = image
        return wider[::2, ::2, ::2, ::2]
    if kind == 2:
        return image.transpose(1, 2).contiguous().transpose(1, 2)
    if kind == 3:
        return image[:1].expand(image.shape)
    return image


def result_size(height: int, width: int, chosen: dict[str, Any]) -> tuple[int, int]:
    """As the README says it, computed otherwise than by the library."""
    if "long_edge" in chosen:
        edges = [Decimal(side) * chosen["long_edge"] / max(height, width) for side in (height, width)]
    else:
        edges = [side * Decimal(repr(chosen["scale"])) for side in (height, width)]
    first, second = (max(1, int(edge.quantize(Decimal(1), rounding=ROUND_HALF_UP))) for edge in edges)
    return first, second


@cases("inputs", quick=60, full=2000, limits=Limits(seconds=20.0, mib=1024.0))
def case(number: int, folder: Path) -> Callable[[], None]:
    rng = random.Random(f"inputs/{number}")
    generator = torch.Generator().manual_seed(number)
    height, width = rng.choice(LONG) if rng.random() < 0.05 else rng.choice(SIZES)
    batch = 1 if height * width > 2500 else rng.choice((1, 1, 1, 2, 3, 9))
    channels = rng.choice((3, 3, 3, 4, 1))
    chosen = options(rng, height, width)
    image = torch.rand(batch, height, width, channels, generator=generator)
    if channels == 4:
        image[..., 3] = (image[..., 3] * 3 - 1).clamp(0, 1)
    if rng.random() < 0.1:
        image = image * 1.2 - 0.1
    image = strided(image.to(rng.choice(FLOATS)), rng)
    mask, black = None, False
    if rng.random() < 0.4:
        size = rng.choice(((height, width), result_size(height, width, chosen)))
        black = rng.random() < 0.5
        mask = torch.rand(rng.choice((1, batch)), *size, generator=generator) * (0.0 if black else 1.0)
    wrong = rng.random() < 0.35
    if wrong:
        image, chosen, mask = spoiled(rng, image, chosen, mask)
    return lambda: attempt(image, chosen, mask, wrong, black)


def spoiled(
    rng: random.Random, image: Tensor, chosen: dict[str, Any], mask: Tensor | None
) -> tuple[Tensor, dict[str, Any], Tensor | None]:
    """With one thing wrong."""
    kind = rng.choice(("value", "type", "channels", "batch", "edge", "dimensions", "option", "option", "mask"))
    batch, height, width, channels = image.shape
    if kind == "value":
        image = image.double().contiguous()
        image[0, rng.randrange(height), rng.randrange(width), rng.randrange(channels)] = rng.choice(WRONG_VALUES)
    elif kind == "type":
        image = (image.float().clamp(0, 1) * 255).to(rng.choice(WHOLE))
    elif kind == "channels":
        image = torch.rand(batch, height, width, rng.choice((0, 2, 5, 16)))
    elif kind == "batch":
        image = image[:0]
    elif kind == "edge":
        image = image[:, :0] if rng.random() < 0.5 else image[:, :, :0]
    elif kind == "dimensions":
        image = rng.choice((image[0], image[0, 0], image[None], torch.tensor(0.5)))
    elif kind == "option":
        change = rng.choice(WRONG_OPTIONS)
        chosen = {key: value for key, value in chosen.items() if key != "long_edge" or "scale" not in change} | change
    else:
        good, many = torch.rand(1, height, width), torch.rand(5 + batch, height, width)
        other = torch.rand(1, height + 1, width * 9 + 7)
        mask = rng.choice((good - 1.5, good * 2 + 1.5, good / 0.0, good[0], good[:, :, :0], many, other))
    return image, chosen, mask


def attempt(image: Tensor, chosen: dict[str, Any], mask: Tensor | None, wrong: bool, black: bool) -> None:
    """AssertionError where it does not end as it should."""
    worked = 0

    def tick() -> None:
        nonlocal worked
        worked += 1

    before = image.clone()
    try:
        result = pipeline().upscale(image, UpscaleOptions(**chosen), mask=mask, tick=tick)
    except AlloSR2Error as error:
        assert wrong, f"refused a good one: {error}"
        assert not worked, f"refused after {worked} tiles: {error}"
        assert "\n" not in str(error) and 10 < len(str(error)) < 300, str(error)
        return
    assert not wrong, (
        f"took a wrong one: {tuple(image.shape)} {image.dtype} {chosen} {None if mask is None else mask.shape}"
    )
    batch, height, width, channels = image.shape
    size = result_size(height, width, chosen)
    assert tuple(result.shape) == (batch, *size, 4 if channels == 4 else 3), tuple(result.shape)
    assert result.dtype == torch.float32 and not result.is_inference()
    assert bool(torch.isfinite(result).all()) and 0.0 <= float(result.min()) <= float(result.max()) <= 1.0
    assert torch.equal(image, before)
    if batch > 1:
        one = mask if mask is None or mask.shape[0] == 1 else mask[-1:]
        assert torch.equal(pipeline().upscale(image[-1:], UpscaleOptions(**chosen), mask=one)[0], result[-1])
    if black and channels != 4:
        rgb = image.float().expand(-1, -1, -1, 3)
        reduced = resize_bicubic(rgb, min(height, size[0]), min(width, size[1]))
        assert float((resize_bicubic(reduced, *size) - result).abs().max()) < (2e-3 if channels == 1 else 1e-5)
