"""The flow convention: identities of the straight path, and the closed form of t* against a search over times."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import (
    INITS,
    Init,
    euler,
    expand,
    interpolate,
    linear_velocity,
    noise_from_velocity,
    one_step,
    rho_from_t,
    rms,
    score_from_velocity,
    snr,
    sr_state,
    sr_velocity,
    start_state,
    t_from_rho,
    velocity_target,
    x0_from_velocity,
)

times = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**31)
inits = st.sampled_from(INITS)
quick = settings(max_examples=40)


def pair(seed: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Two random latents of one shape in float64, the second a degraded version of the first."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, 4, 5, generator=rng, dtype=torch.float64)
    return x, x + 0.4 * torch.randn(x.shape, generator=rng, dtype=torch.float64)


def of(t: float, batch: int = 2) -> Tensor:
    return torch.full((batch,), t, dtype=torch.float64)


# ---- the best linear guess ----


@pytest.mark.parametrize("variance", [0.0, 0.01, 1.0, 7.0])
@pytest.mark.parametrize("t", [0.05, 0.4, 0.8, -0.3])
def test_the_linear_guess_is_the_regression_of_the_velocity_on_the_state(t: float, variance: float) -> None:
    """Against least squares on a sample; what is left over has the stated deviation and does not correlate."""
    rng = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(200_000, generator=rng, dtype=torch.float64) for _ in range(2))
    x0 = x0 * math.sqrt(variance)
    z_t, v = (1 - abs(t)) * x0 + abs(t) * noise, noise - x0
    slope, deviation = (float(x) for x in linear_velocity(of(t, 1), torch.tensor(variance, dtype=torch.float64)))
    assert slope == pytest.approx(float((v * z_t).mean() / z_t.square().mean()), abs=0.02)
    rest = v - slope * z_t
    assert deviation == pytest.approx(float(rest.std()), rel=0.01, abs=1e-6)
    assert abs(float((rest * z_t).mean())) < 0.02


def test_without_signal_the_whole_state_is_noise() -> None:
    slope, deviation = linear_velocity(of(0.25), torch.zeros(2, dtype=torch.float64))
    assert slope.tolist() == [4.0, 4.0] and deviation.tolist() == [0.0, 0.0]


# ---- the path ----


@given(seeds, times)
@quick
def test_both_ends_are_recovered_from_a_state_and_its_velocity(seed: int, t: float) -> None:
    x0, noise = pair(seed)
    z_t, v = interpolate(x0, noise, of(t)), velocity_target(x0, noise)
    torch.testing.assert_close(x0_from_velocity(z_t, v, of(t)), x0)
    torch.testing.assert_close(noise_from_velocity(z_t, v, of(t)), noise)
    torch.testing.assert_close(score_from_velocity(z_t, v, of(t)), -noise / t)


@given(seeds, times)
@quick
def test_the_velocity_is_the_derivative_of_the_state(seed: int, t: float) -> None:
    x0, noise = pair(seed)
    step = 1e-5
    slope = (interpolate(x0, noise, of(t + step)) - interpolate(x0, noise, of(t - step))) / (2 * step)
    torch.testing.assert_close(slope, velocity_target(x0, noise), atol=1e-8, rtol=1e-8)


def test_data_is_at_zero_and_noise_at_one() -> None:
    x0, noise = pair(0)
    assert torch.equal(interpolate(x0, noise, of(0.0)), x0)
    assert torch.equal(interpolate(x0, noise, of(1.0)), noise)


def test_every_sample_has_its_own_time() -> None:
    x0, noise = pair(1)
    t = torch.tensor([0.1, 0.7], dtype=torch.float64)
    together = interpolate(x0, noise, t)
    for i in range(2):
        assert torch.equal(together[i : i + 1], interpolate(x0[i : i + 1], noise[i : i + 1], t[i : i + 1]))


# ---- signal-to-noise ratio and t* ----


@given(st.floats(0.003, 300.0), st.floats(0.01, 100.0))
@quick
def test_t_star_is_where_a_search_finds_equal_snr(rho: float, power: float) -> None:
    table = torch.linspace(0.0, 1.0, 1002, dtype=torch.float64)[1:-1]  # 1000 times, as a schedule has them
    wanted = math.log(power / rho**2)  # SNR(z_L) = E[z_H^2] / E[(z_L - z_H)^2]
    found = float(table[(snr(table, power).log() - wanted).abs().argmin()])
    closed = float(t_from_rho(torch.tensor(rho, dtype=torch.float64)))
    assert abs(closed - found) <= 1 / 1001  # a cell of the table; nearest in log SNR may be the far one of the two


@given(st.floats(0.003, 300.0))
@quick
def test_rho_and_t_are_inverses(rho: float) -> None:
    t = t_from_rho(torch.tensor(rho, dtype=torch.float64))
    assert 0.0 < float(t) < 1.0
    assert float(rho_from_t(t)) == pytest.approx(rho, rel=1e-9)


def test_t_grows_with_rho_from_zero_to_one() -> None:
    t = t_from_rho(torch.tensor([0.0, 0.1, 1.0, 10.0, 1e6]))
    assert float(t[0]) == 0.0
    assert float(t[2]) == 0.5
    assert bool((t.diff() > 0).all()) and float(t[-1]) < 1.0


@given(seeds)
@quick
def test_measured_snr_of_a_pair_equals_that_of_its_flow_state(seed: int) -> None:
    """Measured, not by formula: power of signal over power of disturbance of z_L and of the state at t*."""
    z_hr, z_lr = pair(seed, batch=1)
    t = t_from_rho(rms(z_lr - z_hr).double())
    noise = torch.randn(z_hr.shape, dtype=torch.float64)
    noise = noise / noise.square().mean().sqrt()
    disturbance = interpolate(z_hr, noise, t) - (1 - float(t)) * z_hr
    of_state = ((1 - float(t)) * z_hr).square().mean() / disturbance.square().mean()
    of_latent = z_hr.square().mean() / (z_lr - z_hr).square().mean()
    assert float(of_state) == pytest.approx(float(of_latent), rel=1e-5)


# ---- the SR path ----


@given(seeds, st.floats(0.02, 0.9), inits)
@quick
def test_the_sr_path_runs_from_the_truth_to_the_start(seed: int, t: float, init: Init) -> None:
    """For any t*, also one that is not the pair's own: the start state must not depend on how well t* was guessed."""
    z_hr, z_lr = pair(seed)
    torch.testing.assert_close(sr_state(z_hr, z_lr, of(0.0), of(t), init), z_hr)
    torch.testing.assert_close(sr_state(z_hr, z_lr, of(t), of(t), init), start_state(z_lr, of(t), init))


@given(seeds, st.floats(0.02, 0.9), st.floats(0.05, 0.95), inits)
@quick
def test_sr_velocity_is_the_derivative_of_the_sr_path(seed: int, t: float, share: float, init: Init) -> None:
    z_hr, z_lr = pair(seed)
    s = torch.tensor([share * t, 0.5 * t], dtype=torch.float64, requires_grad=True)
    direction = torch.ones_like(s)
    state, slope = torch.autograd.functional.jvp(lambda u: sr_state(z_hr, z_lr, u, of(t), init), s, direction)
    torch.testing.assert_close(slope, sr_velocity(z_hr, z_lr, of(t), init))
    assert state.shape == z_hr.shape


@given(seeds)
@quick
def test_an_aligned_start_is_a_state_with_noise_of_unit_power(seed: int) -> None:
    z_hr, z_lr = pair(seed)
    t = t_from_rho(rms(z_lr - z_hr)).double()
    noise = noise_from_velocity(start_state(z_lr, t, "aligned"), sr_velocity(z_hr, z_lr, t, "aligned"), t)
    torch.testing.assert_close(rms(noise), torch.ones(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(start_state(z_lr, t, "aligned"), interpolate(z_hr, noise, t), atol=1e-6, rtol=1e-6)


@given(seeds, st.floats(0.02, 0.9), inits)
@quick
def test_one_step_on_the_true_velocity_recovers_the_truth(seed: int, t: float, init: Init) -> None:
    z_hr, z_lr = pair(seed)
    seen: list[Tensor] = []

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        seen.append(time)
        return sr_velocity(z_hr, z_lr, of(t), init)

    torch.testing.assert_close(one_step(velocity, start_state(z_lr, of(t), init), of(t)), z_hr)
    assert len(seen) == 1 and torch.equal(seen[0], of(t))


# ---- integration ----


@given(seeds, times, st.integers(1, 9))
@quick
def test_more_steps_change_nothing_in_a_constant_field(seed: int, t: float, steps: int) -> None:
    z, v = pair(seed)
    torch.testing.assert_close(euler(lambda *_: v, z, of(t), steps), one_step(lambda *_: v, z, of(t)))


def test_euler_converges_at_first_order_in_a_linear_field() -> None:
    """dz/dt = z has z(0) = z(t) exp(-t); halving the step must halve the error."""
    z, _ = pair(3)
    exact = z * math.exp(-0.8)
    errors = [float((euler(lambda x, _: x, z, of(0.8), n) - exact).abs().max()) for n in (8, 16, 32, 64)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert 1.8 < coarse / fine < 2.2


def test_euler_visits_equally_spaced_times_from_t_down_and_never_zero() -> None:
    visited: list[float] = []

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        visited.append(float(t[0]))
        return torch.zeros_like(z)

    euler(velocity, pair(0)[0], of(0.8), 4)
    assert visited == pytest.approx([0.8, 0.6, 0.4, 0.2])


# ---- refusals ----


def test_times_must_fit_the_batch() -> None:
    x = torch.zeros(3, 1, 2, 2)
    assert expand(torch.tensor([0.5]), x).shape == (1, 1, 1, 1)
    for t in (torch.tensor(0.5), torch.zeros(2), torch.zeros(3, 1)):
        with pytest.raises(AlloSR2Error, match=r"shape \[3\]"):
            interpolate(x, x, t)


def test_wrong_values_are_refused() -> None:
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(AlloSR2Error, match="rho >= 0"):
        t_from_rho(torch.tensor([0.1, -0.1]))
    with pytest.raises(AlloSR2Error, match="steps >= 1"):
        euler(lambda z, _: z, x, torch.ones(1), 0)
    for call in (
        lambda: start_state(x, torch.ones(1), "noise"),  # type: ignore[arg-type]
        lambda: sr_state(x, x, torch.ones(1), torch.ones(1), "noise"),  # type: ignore[arg-type]
        lambda: sr_velocity(x, x, torch.ones(1), "noise"),  # type: ignore[arg-type]
    ):
        with pytest.raises(AlloSR2Error, match="'noise'"):
            call()
