"""Grain: fine texture where the photograph has none is seen, by window, and can be descended."""

import math

import pytest
import torch
from torch import Tensor

from allosr2_core.losses.grain import GRAIN_FLOOR, grain_excess, log_grain


def grainy(std: float, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """White noise of a standard deviation, in [-1, 1]: [1, 3, height, width]."""
    return std * torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_log_grain_is_the_amplitude_of_the_detail_by_windows() -> None:
    loud = log_grain(grainy(0.1))
    assert loud.shape == (1, 2, 7, 7)  # half overlapping windows of 16 px in 64
    # a pixel less the mean of its 3 x 3: 8/9 of the power of white noise; that mean less its own 9 x 9 mean: 1/9 - 1/81
    # and the little that the two boxes share
    assert float(loud[:, 0].mean()) == pytest.approx(0.5 * math.log(0.01 * 8 / 9), abs=0.02)
    assert float(loud[:, 1].mean()) == pytest.approx(0.5 * math.log(0.01 * (1 / 9 - 1 / 81)), abs=0.1)
    torch.testing.assert_close(log_grain(torch.zeros(1, 3, 64, 64)), torch.full_like(loud, 0.5 * math.log(GRAIN_FLOOR)))
    assert log_grain(grainy(0.1)[..., :9, :12]).shape == (1, 2, 1, 1)  # less than a window


def test_grain_in_the_wrong_place_is_seen_and_missing_grain_is_not() -> None:
    smooth, grain = torch.zeros(1, 3, 64, 64), grainy(0.1)
    left, right = grain.clone(), grain.clone()
    left[..., 32:], right[..., :32] = 0.0, 0.0
    assert float(grain_excess(grain, grain)["grain"]) == 0.0
    assert float(grain_excess(smooth, grain)["grain"]) == 0.0
    everywhere, misplaced = (float(grain_excess(x, left)["grain"]) for x in (grain, right))
    assert everywhere > 0.4  # half of the windows at about 0.5 log(0.0025 / floor)
    assert misplaced > 0.9 * everywhere  # though the statistics of the pictures are the same
    assert float(grain_excess(grainy(1 / 127.5), smooth)["grain"]) < 0.2  # one level of 255 is next to nothing


def test_descending_grain_takes_it_out_of_the_smooth_half_only() -> None:
    reference = grainy(0.1)
    reference[..., 32:] = 0.0
    x = (reference + grainy(0.02, seed=1)).requires_grad_(True)
    for _ in range(100):
        (gradient,) = torch.autograd.grad(grain_excess(x, reference)["grain"], x)
        assert bool(torch.isfinite(gradient).all())
        x = (x - 0.5 * gradient).detach().requires_grad_(True)
    left, right = x.detach()[..., :24], x.detach()[..., 40:]
    assert float(right.std()) < 0.012 < 0.09 < float(left.std())
