"""FATC, anchor, perceptual and reconstruction terms on fields whose right answer is known.

ATM: test_losses_atm.py; the patch grid: test_losses_grid.py; grain: test_losses_grain.py.
"""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from allosr2_core.flow import INITS, Init, rms, sr_state, sr_velocity, t_from_rho
from allosr2_core.losses.fatc import anchor, curvature, fatc
from allosr2_core.losses.perceptual import feature_distance, perceptual, shift, texture_distance
from allosr2_core.losses.reconstruction import CHARBONNIER_EPS, charbonnier, latent_error


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


def test_both_pictures_are_shifted_alike_and_reach_the_network_in_zero_to_one() -> None:
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


# ---- reconstruction ----


def test_reconstruction_of_pictures_and_of_latents() -> None:
    x, z = torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 2, 2)
    assert float(charbonnier(x, x)) == pytest.approx(CHARBONNIER_EPS)
    assert float(charbonnier(x, x + 0.5)) == pytest.approx(math.hypot(0.5, CHARBONNIER_EPS))
    assert float(latent_error(z, z)) == 0.0
    assert float(latent_error(z, z - 2.0)) == pytest.approx(4.0)


def test_charbonnier_has_a_finite_gradient_at_equal_pictures() -> None:
    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    charbonnier(x, torch.zeros_like(x)).backward()
    assert x.grad is not None and float(x.grad.abs().max()) == 0.0
