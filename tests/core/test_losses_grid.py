"""Penalties on the patch grid, on repetition and on checkerboards: what they see, what they leave, where they push."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from allosr2_core.losses.lattice import (
    GRADIENT_FLOOR,
    SEAM_KNEE,
    _contrast,
    _gradient,
    fine_texture,
    lattice_excess,
    patch_repeat,
    repeat_excess,
)
from train.metrics.lattice import checker_share


def phase_contrast(pixels: Tensor, period: int) -> Tensor:
    """What the penalty sees of a picture's horizontal grid, relative to the picture itself: -> [B]."""
    gradient_BW = _gradient(pixels)
    return _contrast(gradient_BW, period, gradient_BW)


def stairs(period: int, phase: int, side: int = 33) -> Tensor:
    """A picture that steps up by 0.1 once every `period` columns and is flat between."""
    columns = (torch.arange(side) + phase) // period * 0.1
    return columns.expand(2, 3, side, side).contiguous()


def tiled_motif(signs: Tensor) -> Tensor:
    """A 4 x 4 motif in every patch of a [rows, columns] grid of signs: [1, 1, 4 rows, 4 columns]."""
    motif = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    return torch.kron(signs, motif)[None, None]


def checkerboard(side: int) -> Tensor:
    """+1 and -1 from pixel to pixel: [1, 1, side, side]."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((-1.0) ** (rows + columns))[None, None]


@pytest.mark.parametrize("phase", range(4))
def test_the_contrast_of_a_pure_grid(phase: int) -> None:
    """Gradients (a, 0, 0, 0) by phase have mean a/4 and variance 3 a^2/16: a ratio of 3, wherever the grid starts."""
    torch.testing.assert_close(phase_contrast(stairs(4, phase), 4), torch.full((2,), 3.0), atol=1e-4, rtol=0)
    assert float(phase_contrast(stairs(4, phase).transpose(-1, -2), 4).max()) == 0.0


def test_no_grid_no_contrast() -> None:
    ramp = torch.linspace(0, 1, 65).expand(1, 3, 65, 65)
    assert float(phase_contrast(ramp, 4)) < 1e-6
    assert float(phase_contrast(torch.full((1, 3, 65, 65), 0.5), 4)) == 0.0
    noise = torch.rand(1, 3, 257, 257, generator=torch.Generator().manual_seed(0))
    assert float(phase_contrast(noise, 4)) < 1e-3
    assert float(phase_contrast(stairs(3, 0, 97), 4).max()) < 0.02  # a grid of another period


def test_only_what_exceeds_the_reference_is_penalised_in_both_directions() -> None:
    grid, noise = stairs(4, 0), torch.rand(2, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    assert float(lattice_excess(grid, grid, [4])["lattice"]) == 0.0
    assert float(lattice_excess(noise, grid + grid.transpose(-1, -2), [4])["lattice"]) == 0.0
    across = lattice_excess(grid, torch.zeros_like(grid), [4])["lattice"]
    level = (math.hypot(0.1, SEAM_KNEE) - SEAM_KNEE) / 4 / GRADIENT_FLOOR  # the grid's mean, in that of flat pictures
    torch.testing.assert_close(across, torch.tensor(math.log1p(3.0 * level**2)), atol=1e-4, rtol=0)
    torch.testing.assert_close(lattice_excess(grid.transpose(-1, -2), torch.zeros_like(grid), [4])["lattice"], across)


def test_every_period_is_penalised_on_its_own() -> None:
    coarse, flat = stairs(8, 0, 65), torch.zeros_like(stairs(8, 0, 65))
    both, fine = (float(lattice_excess(coarse, flat, periods)["lattice"]) for periods in ([4, 8], [4]))
    assert both == pytest.approx(fine + float(lattice_excess(coarse, flat, [8])["lattice"]), rel=1e-5)
    assert both > 2 * fine > 0.0


def test_a_grid_on_a_flat_picture_counts_by_its_logarithm() -> None:
    """Four times the grid is a dozen times the excess there, and does not take the batch over."""
    flat = torch.zeros_like(stairs(4, 0))
    weak, strong = (float(lattice_excess(size * stairs(4, 0), flat, [4])["lattice"]) for size in (1, 4))
    assert math.expm1(strong) > 12 * math.expm1(weak)
    assert weak < strong < 2 * weak


def test_descending_the_penalty_removes_the_grid() -> None:
    reference = torch.rand(1, 3, 33, 33, generator=torch.Generator().manual_seed(1))
    x = (reference + 4 * stairs(4, 0)[:1]).requires_grad_(True)
    before = lattice_excess(x, reference, [4])["lattice"]
    for _ in range(50):
        (gradient,) = torch.autograd.grad(lattice_excess(x, reference, [4])["lattice"], x)
        assert bool(torch.isfinite(gradient).all())
        x = (x - 20 * gradient).detach().requires_grad_(True)
    assert float(lattice_excess(x, reference, [4])["lattice"].detach()) < 0.2 * float(before.detach())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [3, 5, 9])
def test_fine_texture_is_what_the_mean_of_a_square_leaves_out(side: int, layout: torch.memory_format) -> None:
    picture = torch.rand(2, 3, 17, 24, generator=torch.Generator().manual_seed(5)).contiguous(memory_format=layout)
    mean = F.avg_pool2d(picture, side, stride=1, padding=side // 2, count_include_pad=False)
    torch.testing.assert_close(fine_texture(picture, side), picture - mean, atol=1e-6, rtol=0)


def test_patch_repeat_sees_a_motif_that_repeats_and_one_that_alternates() -> None:
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    same = tiled_motif(torch.ones(24, 24))
    alternating = tiled_motif((-1.0) ** (rows + columns))
    noise = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    assert patch_repeat(same, 4).shape == (1, 5, 4)  # half overlapping windows of 32 px in 96 x (96 - 5)
    assert float(patch_repeat(same, 4).min()) > 0.5
    assert float(patch_repeat(alternating, 4).max()) < -0.5
    assert float(patch_repeat(noise, 4).abs().mean()) < 0.05
    torch.testing.assert_close(patch_repeat(7 * same, 4), patch_repeat(same, 4), atol=1e-3, rtol=0)
    assert float(patch_repeat(1e-4 * same, 4).abs().max()) < 0.01  # too faint to be seen
    assert patch_repeat(same[..., :9, :12], 4).shape == (1, 1, 1)  # less than a window


def test_patch_repeat_sees_a_weave_in_a_corner_and_in_one_colour() -> None:
    picture = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)).mul(0.1)
    woven = picture.clone()
    woven[:, 2, :40, :40] = 0.3 * tiled_motif(torch.ones(10, 10))[0]
    gained = patch_repeat(woven, 4) - patch_repeat(picture, 4)
    assert float(gained[0, 0, 0]) > 0.3
    assert float(gained[0, -1, -1].abs()) == 0.0


def test_the_checkerboard_share_sees_single_pixels_and_not_their_phase_or_size() -> None:
    rng = torch.Generator().manual_seed(0)
    board, noise = checkerboard(48), torch.randn(1, 1, 48, 48, generator=rng)
    smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
    assert float(checker_share(board)) == pytest.approx(81 / 64, rel=0.05)  # "fine" misses a ninth of its amplitude
    assert float(checker_share(5 * board)) == pytest.approx(float(checker_share(board)), rel=1e-4)
    blocks = torch.kron((-1.0) ** (torch.arange(4)[:, None] + torch.arange(4)), torch.ones(12, 12))[None, None]
    patches = torch.where(blocks > 0, board, -board)  # the phase alternates from block to block
    assert float(checker_share(patches)) > 0.5 > 0.05 > float(checker_share(smooth))
    assert 0.05 < float(checker_share(noise)) < 0.12  # (70 / 256)^2 of the power of white noise
    assert float(checker_share(torch.zeros(1, 3, 8, 8))) == 0.0


def test_repeat_excess_is_zero_on_the_reference_and_pushes_the_motif_away() -> None:
    noise = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert float(repeat_excess(noise, noise, 4)["repeat"]) == 0.0
    x = (noise + tiled_motif(torch.ones(12, 12))).requires_grad_(True)
    before = repeat_excess(x, noise, 4)["repeat"]
    (gradient,) = torch.autograd.grad(before, x)
    after = repeat_excess(x - 20.0 * gradient, noise, 4)["repeat"]
    assert 0.0 < float(after.detach()) < float(before.detach())


Penalty = Callable[[Tensor, Tensor], Tensor]
PENALTIES: dict[str, tuple[Penalty, Callable[[Tensor], Tensor]]] = {
    "lattice": (lambda x, y: lattice_excess(x, y, [4])["lattice"], lambda x: phase_contrast(x, 4)),
    "repeat": (lambda x, y: repeat_excess(x, y, 4)["repeat"], lambda x: patch_repeat(x, 4).abs().mean()),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_grain_hides_a_grid_from_the_measure_but_not_from_the_penalty(name: str) -> None:
    """Relative to the result's own gradients, painting grain would be a way to descend."""
    penalty, measure = PENALTIES[name]
    rng = torch.Generator().manual_seed(0)
    reference = 0.01 * torch.randn(1, 3, 96, 96, generator=rng)
    motif = {"lattice": 0.3 * stairs(4, 0, 96)[:1], "repeat": 0.02 * tiled_motif(torch.ones(24, 24))}
    gridded = reference + motif[name]
    grainy = gridded + 0.03 * torch.randn(1, 3, 96, 96, generator=rng)
    assert float(measure(grainy).max()) < 0.7 * float(measure(gridded).max())
    assert float(penalty(grainy, reference)) > 0.85 * float(penalty(gridded, reference)) > 0.05
