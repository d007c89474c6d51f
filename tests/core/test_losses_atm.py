"""ATM re-derived on Gaussians, where both velocity fields and the divergence are known in closed form.

Data N(m, s^2) under z_t = (1 - t) x0 + t e is N((1-t) m, var) with var = (1-t)^2 s^2 + t^2, and
E[x0 | z] = m + (1-t) s^2 (z - (1-t) m) / var,  E[e | z] = t (z - (1-t) m) / var,  v(z, t) = E[e - x0 | z].
"""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from allosr2_core.flow import interpolate, score_from_velocity, x0_from_velocity
from allosr2_core.losses.atm import fake_flow, kl_gradient, match, match_direction


@dataclass(frozen=True)
class Gaussian:
    """N(mean, std^2) in every cell of a latent."""

    mean: float
    std: float

    def var(self, t: float) -> float:
        """Variance of the noised distribution at t."""
        return (1 - t) ** 2 * self.std**2 + t**2

    def velocity(self, z: Tensor, t_B: Tensor) -> Tensor:
        t = t_B.to(z)[:, None, None, None]
        centred = (z - (1 - t) * self.mean) / ((1 - t) ** 2 * self.std**2 + t**2)
        return t * centred - (self.mean + (1 - t) * self.std**2 * centred)

    def score(self, z: Tensor, t: float) -> Tensor:
        """d/dz log density at t by automatic differentiation: shares no formula with the code under test."""
        z = z.clone().requires_grad_(True)
        location = torch.tensor((1 - t) * self.mean, dtype=z.dtype)
        density = torch.distributions.Normal(location, torch.tensor(self.var(t), dtype=z.dtype).sqrt())
        return torch.autograd.grad(density.log_prob(z).sum(), z)[0]


FAKE, REAL = Gaussian(0.7, 0.5), Gaussian(-0.4, 1.2)


def draw(of: Gaussian, count: int, batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(unit noise u, output zhat = mean + std u, flow noise e), each [batch, 1, 1, count] in float64."""
    rng = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, 1, 1, count, generator=rng, dtype=torch.float64)
    return u, of.mean + of.std * u, torch.randn(u.shape, generator=rng, dtype=torch.float64)


def at(t: float, batch: int = 1) -> Tensor:
    return torch.full((batch,), t, dtype=torch.float64)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.6, 0.95])
def test_the_score_of_the_exact_velocity_is_that_of_the_density(t: float) -> None:
    z = torch.linspace(-3, 3, 25, dtype=torch.float64).reshape(1, 1, 1, -1)
    for gaussian in (FAKE, REAL):
        torch.testing.assert_close(score_from_velocity(z, gaussian.velocity(z, at(t)), at(t)), gaussian.score(z, t))


@pytest.mark.parametrize("t", [0.05, 0.3, 0.6, 0.95])
def test_kl_gradient_is_the_score_difference_in_both_forms(t: float) -> None:
    _, z_hat, noise = draw(FAKE, 50)
    z_t = interpolate(z_hat, noise, at(t))
    v_fake, v_real = FAKE.velocity(z_t, at(t)), REAL.velocity(z_t, at(t))
    g = kl_gradient(z_t, v_fake, v_real, at(t))
    torch.testing.assert_close(g, FAKE.score(z_t, t) - REAL.score(z_t, t))
    torch.testing.assert_close(g, -((1 - t) / t) * (v_fake - v_real))


@pytest.mark.parametrize("t", [0.1, 0.4, 0.7])
def test_its_mean_is_the_gradient_of_the_divergence_in_the_generators_parameters(t: float) -> None:
    """zhat = m + s u. KL(p_SR,t || p_gen,t) of two Gaussians, differentiated by hand-free autograd in m and s."""
    u, z_hat, noise = draw(FAKE, 400_000)
    z_t = interpolate(z_hat, noise, at(t))
    g = (1 - t) * kl_gradient(z_t, FAKE.velocity(z_t, at(t)), REAL.velocity(z_t, at(t)), at(t))  # dz_t/dzhat = 1 - t
    m, s = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (FAKE.mean, FAKE.std))
    p = torch.distributions.Normal((1 - t) * m, (((1 - t) * s) ** 2 + t**2).sqrt())
    q = torch.distributions.Normal((1 - t) * REAL.mean, math.sqrt(REAL.var(t)))
    torch.distributions.kl_divergence(p, q).backward()
    assert m.grad is not None and s.grad is not None
    assert float(g.mean()) == pytest.approx(float(m.grad), abs=0.01)
    assert float((g * u).mean()) == pytest.approx(float(s.grad), abs=0.01)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.6])
def test_the_gradient_of_the_loss_is_the_weighted_score_difference(t: float) -> None:
    """w = t^2 / (1 - t) / mean|zhat - x0_real| of each sample, as documented, and 1/numel from the mean."""
    _, z_hat, noise = draw(FAKE, 20, batch=3)
    z_hat.requires_grad_(True)
    match(z_hat, noise, at(t, 3), FAKE.velocity, REAL.velocity)["atm_match"].backward()
    with torch.no_grad():
        z_t = interpolate(z_hat, noise, at(t, 3))
        x0_real = x0_from_velocity(z_t, REAL.velocity(z_t, at(t, 3)), at(t, 3))
        weight = t**2 / (1 - t) / (z_hat - x0_real).abs().mean(dim=(1, 2, 3), keepdim=True)
    assert bool((weight > 0).all())
    expected = weight * (FAKE.score(z_t, t) - REAL.score(z_t, t)) / z_hat.numel()
    torch.testing.assert_close(z_hat.grad, expected)


def test_the_step_is_the_disagreement_of_the_two_denoised_pictures() -> None:
    _, z_hat, noise = draw(FAKE, 30, batch=2)
    t = torch.tensor([0.2, 0.6], dtype=torch.float64)
    z_t = interpolate(z_hat, noise, t)
    v_fake, v_real = FAKE.velocity(z_t, t), REAL.velocity(z_t, t)
    x0_fake, x0_real = x0_from_velocity(z_t, v_fake, t), x0_from_velocity(z_t, v_real, t)
    expected = (x0_fake - x0_real) / (z_hat - x0_real).abs().mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(match_direction(z_hat, z_t, v_fake, v_real, t), expected)


def test_there_is_no_gradient_where_both_flows_agree() -> None:
    _, z_hat, noise = draw(REAL, 30)
    z_hat.requires_grad_(True)
    term = match(z_hat, noise, at(0.4), REAL.velocity, REAL.velocity)["atm_match"]
    term.backward()
    assert float(term.detach()) == 0.0
    assert float(z_hat.grad.abs().max()) == 0.0


def test_an_exact_output_of_a_sure_prior_does_not_divide_by_zero() -> None:
    """zhat = x0_real makes the normaliser vanish; its floor keeps the step finite."""
    z_hat, noise = torch.zeros(1, 1, 4, 4, dtype=torch.float64), torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    sure = Gaussian(0.0, 1e-9)
    assert math.isfinite(float(match(z_hat, noise, at(0.3), FAKE.velocity, sure.velocity)["atm_match"]))


def test_gradients_reach_the_output_only() -> None:
    _, z_hat, noise = draw(FAKE, 10)
    z_hat.requires_grad_(True)
    gain = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    match(z_hat, noise, at(0.3), lambda z, t: gain * FAKE.velocity(z, t), lambda z, t: gain * REAL.velocity(z, t))[
        "atm_match"
    ].backward()
    assert gain.grad is None and z_hat.grad is not None


@pytest.mark.parametrize("t", [0.2, 0.5])
def test_descending_the_loss_moves_fake_onto_real(t: float) -> None:
    """The generator zhat = m + s u follows the loss with its exact own flow: mean and spread become the prior's."""
    m = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    s = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.SGD([m, s], lr=0.5)
    for step in range(200):
        u, _, noise = draw(FAKE, 4096, seed=step)
        own = Gaussian(float(m.detach()), float(s.detach()))
        descent.zero_grad()
        match(m + s * u, noise, at(t), own.velocity, REAL.velocity)["atm_match"].backward()
        if step == 0:
            assert m.grad is not None and s.grad is not None
            assert float(m.grad) > 0 > float(s.grad)  # down to -0.4, wider to 1.2
        descent.step()
    assert float(m.detach()) == pytest.approx(REAL.mean, abs=0.05)
    assert float(s.detach()) == pytest.approx(REAL.std, abs=0.05)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_fake_flow_is_least_at_the_exact_flow_of_the_outputs(t: float) -> None:
    """The exact field is linear in z: its slope and offset must zero the loss's gradient."""
    _, z_hat, noise = draw(FAKE, 400_000)
    zero, one, time = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), torch.tensor([t])
    offset = float(FAKE.velocity(zero, time))
    slope = float(FAKE.velocity(one, time)) - offset
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (slope, offset))
    best = fake_flow(lambda z, _: a * z + b, z_hat, noise, at(t))["atm_fake"]
    best.backward()
    assert a.grad is not None and b.grad is not None
    assert float(a.grad) == pytest.approx(0.0, abs=0.01)
    assert float(b.grad) == pytest.approx(0.0, abs=0.01)
    for da, db in ((0.2, 0.0), (-0.2, 0.0), (0.0, 0.2), (0.0, -0.2)):
        other = fake_flow(lambda z, _, da=da, db=db: (a + da) * z + b + db, z_hat, noise, at(t))["atm_fake"]
        assert float(other.detach()) > float(best.detach())


def test_the_fake_flow_is_asked_at_negative_times_and_leaves_the_output_alone() -> None:
    _, z_hat, noise = draw(FAKE, 10, batch=2)
    z_hat.requires_grad_(True)
    t = torch.tensor([0.2, 0.6], dtype=torch.float64)
    gain = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    asked: list[Tensor] = []

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        asked.append(time)
        torch.testing.assert_close(z, interpolate(z_hat, noise, t).detach())
        return gain * z

    fake_flow(velocity, z_hat, noise, t)["atm_fake"].backward()
    assert len(asked) == 1 and torch.equal(asked[0], -t)
    assert gain.grad is not None and z_hat.grad is None
