"""FATC, anchor, perceptual and reconstruction terms on fields whose right answer is known. ATM: test_losses_atm.py."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from allosr2_core.flow import INITS, Init, rms, sr_state, sr_velocity, t_from_rho
from allosr2_core.losses.fatc import anchor, curvature, fatc
from allosr2_core.losses.grain import GRAIN_FLOOR, grain_excess, log_grain
from allosr2_core.losses.lattice import (
    GRADIENT_FLOOR,
    SEAM_KNEE,
    checker_excess,
    checker_share,
    lattice_excess,
    patch_repeat,
    phase_contrast,
    repeat_excess,
)
from allosr2_core.losses.perceptual import feature_distance, perceptual, shift, texture_distance
from allosr2_core.losses.reconstruction import CHARBONNIER_EPS, charbonnier, reconstruction


@pytest.fixture
def pair() -> tuple[Tensor, Tensor, Tensor]:
    """z_H, z_L and each pair's own t*, [3, 2, 6, 6]."""
    rng = torch.Generator().manual_seed(0)
    z_hr = torch.randn(3, 2, 6, 6, generator=rng)
    z_lr = z_hr + torch.tensor([0.1, 0.4, 1.0])[:, None, None, None] * torch.randn(z_hr.shape, generator=rng)
    return z_hr, z_lr, t_from_rho(rms(z_lr - z_hr))


# ---- FATC ----


@pytest.mark.parametrize("init", INITS)
def test_fatc_is_zero_on_the_true_field_and_only_there(init: Init, pair: tuple[Tensor, Tensor, Tensor]) -> None:
    z_hr, z_lr, t = pair
    u, s = sr_velocity(z_hr, z_lr, t, init), t * torch.tensor([0.2, 0.5, 1.0])
    assert float(fatc(lambda z, _: u, z_hr, z_lr, t, s, init)["fatc"]) == 0.0
    assert float(fatc(lambda z, _: u + 0.1, z_hr, z_lr, t, s, init)["fatc"]) > 0.0


def test_fatc_asks_for_the_state_at_the_drawn_time(pair: tuple[Tensor, Tensor, Tensor]) -> None:
    z_hr, z_lr, t = pair
    s = 0.3 * t
    asked: list[tuple[Tensor, Tensor]] = []

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        asked.append((z, time))
        return torch.zeros_like(z)

    fatc(velocity, z_hr, z_lr, t, s, "aligned")
    assert len(asked) == 1
    torch.testing.assert_close(asked[0][0], sr_state(z_hr, z_lr, s, t, "aligned"))
    assert torch.equal(asked[0][1], s)


def test_fatc_of_a_silent_field_is_about_one_whatever_the_degradation(pair: tuple[Tensor, Tensor, Tensor]) -> None:
    """v = 0 costs E||u||^2 / max(1, E||u||^2) = 1, also where a clamped t* makes u very large."""
    z_hr, z_lr, t = pair
    for t_star in (t, torch.full_like(t, 0.03)):
        assert float(rms(sr_velocity(z_hr, z_lr, t_star, "aligned")).max()) > 1.0
        term = fatc(lambda z, _: torch.zeros_like(z), z_hr, z_lr, t_star, t_star, "aligned")
        assert float(term["fatc"]) == pytest.approx(1.0, abs=1e-5)


def test_fatc_weighs_samples_alike(pair: tuple[Tensor, Tensor, Tensor]) -> None:
    z_hr, z_lr, t = pair
    field = torch.randn(z_hr.shape, generator=torch.Generator().manual_seed(1))
    whole = fatc(lambda z, _: field[: len(z)], z_hr, z_lr, t, t, "aligned")["fatc"]
    parts = []
    for i in range(3):
        one = slice(i, i + 1)
        parts.append(fatc(lambda z, _, one=one: field[one], z_hr[one], z_lr[one], t[one], t[one], "aligned")["fatc"])
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_fatc_trains_the_field_and_not_the_encoder(pair: tuple[Tensor, Tensor, Tensor]) -> None:
    """An encoder that could move z_L would lower the loss by moving the target."""
    z_hr, z_lr, t = pair
    z_lr = z_lr.clone().requires_grad_(True)
    gain = torch.tensor(0.5, requires_grad=True)
    fatc(lambda z, _: gain * z, z_hr, z_lr, t, 0.5 * t, "aligned")["fatc"].backward()
    assert gain.grad is not None and float(gain.grad.abs()) > 0
    assert z_lr.grad is None


# ---- anchor ----


def test_anchor_is_zero_on_the_exact_field_of_a_single_picture() -> None:
    """Data of one point z_H has the conditional field v(z, t) = (z - z_H) / t, without any remaining variance."""
    rng = torch.Generator().manual_seed(0)
    z_hr = torch.randn(1, 2, 5, 5, generator=rng, dtype=torch.float64).expand(4, -1, -1, -1)
    noise, t = torch.randn(z_hr.shape, generator=rng, dtype=torch.float64), torch.tensor([0.1, 0.4, 0.7, 0.99])
    exact = anchor(lambda z, s: (z - z_hr) / s.to(z)[:, None, None, None], z_hr, noise, t.double())["anchor"]
    assert float(exact) < 1e-24
    assert float(anchor(lambda z, s: 1.1 * (z - z_hr) / s[:, None, None, None], z_hr, noise, t)["anchor"]) > 1e-3


@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_anchor_at_the_best_field_is_the_conditional_variance(t: float) -> None:
    """Data N(0, 1): the best field is ((2t - 1) / var) z with var = (1-t)^2 + t^2, leaving 2 - (2t - 1)^2 / var."""
    rng = torch.Generator().manual_seed(0)
    z_hr, noise = torch.randn(1, 1, 400, 400, generator=rng), torch.randn(1, 1, 400, 400, generator=rng)
    gain, var = 2 * t - 1, (1 - t) ** 2 + t**2
    best = float(anchor(lambda z, _: gain / var * z, z_hr, noise, torch.tensor([t]))["anchor"])
    assert best == pytest.approx(2 - gain**2 / var, rel=0.02)
    for other in (gain / var - 0.2, gain / var + 0.2):
        assert float(anchor(lambda z, _, k=other: k * z, z_hr, noise, torch.tensor([t]))["anchor"]) > best


# ---- curvature ----


@pytest.mark.parametrize("init", INITS)
def test_curvature_is_zero_on_a_straight_field(init: Init, pair: tuple[Tensor, Tensor, Tensor]) -> None:
    z_hr, z_lr, t = pair
    u = sr_velocity(z_hr, z_lr, t, init)
    assert float(curvature(lambda z, _: u, z_hr, z_lr, t, 0.3 * t, init)) == 0.0


def test_curvature_of_a_field_that_bends_with_time(pair: tuple[Tensor, Tensor, Tensor]) -> None:
    z_hr, z_lr, t = pair
    bent = curvature(lambda z, s: s[:, None, None, None].expand_as(z), z_hr, z_lr, t, 0.3 * t, "aligned")
    expected = (0.7 * t).square().mean() / sr_velocity(z_hr, z_lr, t, "aligned").square().mean()
    torch.testing.assert_close(bent, expected)


# ---- perceptual ----


def test_a_whole_shift_is_slicing() -> None:
    x = torch.rand(2, 3, 9, 11)
    assert torch.equal(shift(x, 0.0, 0.0), x[:, :, :-1, :-1])
    assert torch.equal(shift(x, 2.0, 3.0), x[:, :, 2:-1, 3:-1])


@pytest.mark.parametrize(("dy", "dx"), [(0.25, 0.0), (1.75, 2.5), (3.99, 0.01)])
def test_a_fractional_shift_moves_a_ramp_by_that_much(dy: float, dx: float) -> None:
    y, x = torch.meshgrid(torch.arange(10.0), torch.arange(12.0), indexing="ij")
    moved = shift((10 * y + x)[None, None], dy, dx)
    assert moved.shape == (1, 1, 10 - int(dy) - 1, 12 - int(dx) - 1)
    y, x = torch.meshgrid(torch.arange(float(moved.shape[2])), torch.arange(float(moved.shape[3])), indexing="ij")
    torch.testing.assert_close(moved[0, 0], 10 * (y + dy) + x + dx, atol=1e-4, rtol=1e-5)


def test_both_pictures_are_shifted_alike_and_reach_the_trunk_in_zero_to_one() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def distance(x: Tensor, y: Tensor) -> Tensor:
        seen.append((x, y))
        return (x - y).square().flatten(1).mean(dim=1)

    x, y = torch.rand(2, 3, 8, 8) * 2 - 1, torch.rand(2, 3, 8, 8) * 2 - 1
    offset = torch.tensor([1.5, 0.25])
    terms = perceptual(x, y, distance, offset)
    assert list(terms) == ["perceptual"]
    for got, whole in zip(seen[0], (x, y), strict=True):
        torch.testing.assert_close(got, shift((whole + 1) / 2, 1.5, 0.25))
        assert 0.0 <= float(got.min()) and float(got.max()) <= 1.0
    torch.testing.assert_close(terms["perceptual"], distance(*seen[0]).mean())
    assert float(perceptual(x, x, distance, offset)["perceptual"]) == 0.0


def test_feature_distance_is_relative_to_the_reference_layer_by_layer() -> None:
    rng = torch.Generator().manual_seed(0)
    features: Sequence[Tensor] = [torch.randn(2, c, 4, 4, generator=rng) for c in (3, 5)]
    assert float(feature_distance(features, features)) == 0.0
    torch.testing.assert_close(feature_distance([3 * f for f in features], features), torch.tensor(2.0))
    louder = [10 * features[0], features[1]]  # a loud layer counts no more than a quiet one
    torch.testing.assert_close(feature_distance([1.5 * f for f in louder], louder), torch.tensor(0.5))
    torch.testing.assert_close(feature_distance([2 * features[0], features[1]], features), torch.tensor(0.5))
    with pytest.raises(ValueError, match="zip"):
        feature_distance(features, features[:1])


def test_texture_distance_knows_amounts_and_not_places() -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.randn(2, 4, 32, 32, generator=rng).abs()
    other_noise = torch.randn(2, 4, 32, 32, generator=rng).abs()  # the same texture elsewhere
    blurred = y.mean(dim=(2, 3), keepdim=True).expand_as(y)
    assert float(texture_distance([y], [y])) == pytest.approx(0.0, abs=1e-6)
    # means agree, covariance does not: half of the distance of a picture with nothing in common
    assert float(texture_distance([other_noise], [y])) == pytest.approx(0.5, abs=0.02)
    assert float(texture_distance([torch.zeros_like(y)], [y])) == pytest.approx(1.0, abs=0.03)
    assert float(texture_distance([3 * y], [y])) > float(texture_distance([1.5 * y], [y])) > 0.01
    # a flat answer keeps the means of this layer, as noise does; what tells them apart are the means of the next layers
    assert float(texture_distance([blurred], [y])) == pytest.approx(0.5, abs=0.02)
    quiet = torch.cat([y, 1e-4 * other_noise[:, :2]], dim=1)  # channels next to silence count as equal
    assert float(texture_distance([torch.cat([y, torch.zeros_like(y[:, :2])], dim=1)], [quiet])) < 1e-3


def test_texture_distance_has_finite_gradients_on_flat_pictures() -> None:
    x = torch.zeros(1, 2, 8, 8, requires_grad=True)
    texture_distance([x], [torch.zeros(1, 2, 8, 8)]).backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 6, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    start = float(texture_distance([x], [torch.ones(1, 2, 6, 6)]).detach())
    texture_distance([x], [torch.ones(1, 2, 6, 6)]).backward()
    assert x.grad is not None
    assert float(texture_distance([x - 0.05 * x.grad / x.grad.norm()], [torch.ones(1, 2, 6, 6)]).detach()) < start


# ---- lattice ----


def stairs(period: int, phase: int, side: int = 33) -> Tensor:
    """A picture that steps up by 0.1 once every `period` columns and is flat between."""
    columns = (torch.arange(side) + phase) // period * 0.1
    return columns.expand(2, 3, side, side).contiguous()


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
    torch.testing.assert_close(across, torch.tensor(3.0 * level**2), atol=1e-3, rtol=0)
    torch.testing.assert_close(lattice_excess(grid.transpose(-1, -2), torch.zeros_like(grid), [4])["lattice"], across)


def test_every_period_is_penalised_on_its_own() -> None:
    coarse, flat = stairs(8, 0, 65), torch.zeros_like(stairs(8, 0, 65))
    both, fine = (float(lattice_excess(coarse, flat, periods)["lattice"]) for periods in ([4, 8], [4]))
    assert both == pytest.approx(fine + float(lattice_excess(coarse, flat, [8])["lattice"]), rel=1e-5)
    assert both > 2 * fine > 0.0


def test_descending_the_penalty_removes_the_grid() -> None:
    reference = torch.rand(1, 3, 33, 33, generator=torch.Generator().manual_seed(1))
    x = (reference + 4 * stairs(4, 0)[:1]).requires_grad_(True)
    before = lattice_excess(x, reference, [4])["lattice"]
    for _ in range(50):
        (gradient,) = torch.autograd.grad(lattice_excess(x, reference, [4])["lattice"], x)
        assert bool(torch.isfinite(gradient).all())
        x = (x - 20 * gradient).detach().requires_grad_(True)
    assert float(lattice_excess(x, reference, [4])["lattice"].detach()) < 0.2 * float(before.detach())


Penalty = Callable[[Tensor, Tensor], Tensor]
PENALTIES: dict[str, tuple[Penalty, Callable[[Tensor], Tensor]]] = {
    "lattice": (lambda x, y: lattice_excess(x, y, [4])["lattice"], lambda x: phase_contrast(x, 4)),
    "repeat": (lambda x, y: repeat_excess(x, y, 4)["repeat"], lambda x: patch_repeat(x, 4).abs().mean()),
    "checker": (lambda x, y: checker_excess(x, y)["checker"], checker_share),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_grain_hides_a_grid_from_the_measure_but_not_from_the_penalty(name: str) -> None:
    """Relative to the result's own gradients, painting grain would be a way to descend."""
    penalty, measure = PENALTIES[name]
    rng = torch.Generator().manual_seed(0)
    reference = 0.01 * torch.randn(1, 3, 96, 96, generator=rng)
    motif = {"lattice": 0.3 * stairs(4, 0, 96)[:1], "repeat": 0.02 * tiled_motif(torch.ones(24, 24))}
    gridded = reference + motif.get(name, 0.02 * checkerboard(96))
    grainy = gridded + 0.03 * torch.randn(1, 3, 96, 96, generator=rng)
    assert float(measure(grainy).max()) < 0.7 * float(measure(gridded).max())
    assert float(penalty(grainy, reference)) > 0.85 * float(penalty(gridded, reference)) > 0.05


# ---- grain ----


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


# ---- reconstruction ----


def test_reconstruction_names_and_values() -> None:
    x, z = torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 2, 2)
    same = reconstruction(x, x, z, z)
    assert set(same) == {"rec_pixel", "rec_latent"}
    assert float(same["rec_pixel"]) == pytest.approx(CHARBONNIER_EPS)
    assert float(same["rec_latent"]) == 0.0
    apart = reconstruction(x, x + 0.5, z, z - 2.0)
    assert float(apart["rec_pixel"]) == pytest.approx(math.hypot(0.5, CHARBONNIER_EPS))
    assert float(apart["rec_latent"]) == pytest.approx(4.0)


def test_charbonnier_has_a_finite_gradient_at_equal_pictures() -> None:
    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    charbonnier(x, torch.zeros_like(x)).backward()
    assert x.grad is not None and float(x.grad.abs().max()) == 0.0


def tiled_motif(signs: Tensor) -> Tensor:
    """A 4 x 4 motif in every patch of a [rows, columns] grid of signs: [1, 1, 4 rows, 4 columns]."""
    motif = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    return torch.kron(signs, motif)[None, None]


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


def checkerboard(side: int) -> Tensor:
    """+1 and -1 from pixel to pixel: [1, 1, side, side]."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((-1.0) ** (rows + columns))[None, None]


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


def test_checker_excess_is_what_the_reference_has_not_and_can_be_descended() -> None:
    noise = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert float(checker_excess(noise, noise)["checker"]) == 0.0
    x = (noise + checkerboard(48)).requires_grad_(True)
    before = checker_excess(x, noise)["checker"]
    (gradient,) = torch.autograd.grad(before, x)
    after = checker_excess(x - 50.0 * gradient, noise)["checker"]
    assert 0.0 <= float(after.detach()) < float(before.detach())
    assert float(checker_excess(noise, noise + checkerboard(48))["checker"]) == 0.0  # less than the reference is free


def test_repeat_excess_is_zero_on_the_reference_and_pushes_the_motif_away() -> None:
    noise = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert float(repeat_excess(noise, noise, 4)["repeat"]) == 0.0
    x = (noise + tiled_motif(torch.ones(12, 12))).requires_grad_(True)
    before = repeat_excess(x, noise, 4)["repeat"]
    (gradient,) = torch.autograd.grad(before, x)
    after = repeat_excess(x - 20.0 * gradient, noise, 4)["repeat"]
    assert 0.0 < float(after.detach()) < float(before.detach())
