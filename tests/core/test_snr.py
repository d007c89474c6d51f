"""How degraded is a latent: measured on pairs, calibrated over a set, guessed by the head."""

import pytest
import torch
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import t_from_rho
from allosr2_core.snr import SNRHead, SNRHeadParams, calibrated_t, head_loss, paired_rho


def head(hidden: int = 8, seed: int = 0) -> SNRHead:
    torch.manual_seed(seed)
    return SNRHead(SNRHeadParams(latent_channels=4, hidden=hidden, levels=2))


def pairs(batch: int, side: int, seed: int, low: float = 0.05, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """Smooth z_H and z_L = z_H + noise whose strength is drawn evenly in its logarithm, per sample."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 4, side // 4, side // 4, generator=rng)
    z_hr = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    strength = low * (high / low) ** torch.rand(batch, 1, 1, 1, generator=rng)
    return z_hr, z_hr + strength * torch.randn(z_hr.shape, generator=rng)


# ---- measured ----


def test_paired_rho_is_the_rms_distance_of_each_pair() -> None:
    z = torch.randn(3, 4, 5, 5)
    offsets = torch.tensor([0.0, 0.5, -2.0])
    rho = paired_rho(z + offsets[:, None, None, None], z)
    torch.testing.assert_close(rho, offsets.abs(), atol=1e-6, rtol=1e-6)
    assert rho.dtype == torch.float32
    assert paired_rho(z.half(), z.half() + 1).dtype == torch.float32
    with pytest.raises(AlloSR2Error, match="one shape"):
        paired_rho(z, z[:, :, 1:])


def test_calibrated_t_balances_power_and_not_amplitude() -> None:
    """Second-order statistics: two pairs with rho 0.1 and 0.7 have a mean square of 0.25, so rho 0.5 and t* 1/3."""
    assert calibrated_t(torch.tensor([0.1, 0.7])) == pytest.approx(1 / 3, abs=1e-6)
    assert calibrated_t(torch.tensor([0.3])) == pytest.approx(float(t_from_rho(torch.tensor(0.3))))
    with pytest.raises(AlloSR2Error, match="at least one pair"):
        calibrated_t(torch.zeros(0))


# ---- guessed ----


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (17, 2)])
def test_the_head_takes_any_size(size: tuple[int, int]) -> None:
    network, z = head(), torch.randn(2, 4, *size)
    assert network(z).shape == (2,)
    local = network.local_map(z)
    assert local.shape == (2, 1, *size)
    assert bool((local > 0).all() & torch.isfinite(local).all())


def test_log_rho_is_that_of_the_rms_of_the_map() -> None:
    """On even sizes the map keeps the mean only roughly (it is interpolated), so a constant one is compared."""
    network, z = head(), torch.full((1, 4, 8, 8), 0.3)
    rho = float(network(z).exp().detach())
    assert rho == pytest.approx(float(network.local_map(z).detach().square().mean().sqrt()), rel=1e-5)


def test_samples_do_not_see_each_other() -> None:
    network, z = head(), torch.randn(3, 4, 8, 8)
    alone = torch.cat([network(z[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(z), alone, atol=1e-5, rtol=1e-5)


def test_extreme_latents_stay_in_range() -> None:
    for scale in (0.0, 1e4):
        rho = head()(scale * torch.ones(1, 4, 8, 8)).exp()
        assert 5e-4 < float(rho.detach()) < 25.0  # exp of half of -14..6


def test_other_latents_are_refused() -> None:
    for shape in ((1, 3, 8, 8), (4, 8, 8)):
        with pytest.raises(AlloSR2Error, match=r"\[B, 4, h, w\]"):
            head()(torch.zeros(shape))


def test_the_loss_reaches_the_head_only() -> None:
    network, (z_hr, z_lr) = head(), pairs(2, 8, 0)
    z_hr.requires_grad_(True), z_lr.requires_grad_(True)
    terms = head_loss(network.log_power(z_lr.detach()), z_lr, z_hr)
    assert set(terms) == {"snr_head", "snr_map"}
    torch.stack(list(terms.values())).sum().backward()
    assert z_hr.grad is None and z_lr.grad is None
    assert all(p.grad is not None for p in network.parameters())


def test_the_loss_of_a_right_answer_is_zero() -> None:
    """A head whose last layer says the same everywhere, and a pair with exactly that error everywhere."""
    network = head()
    with torch.no_grad():
        network.out.weight.zero_()
        network.out.bias.fill_(2 * torch.log(torch.tensor(0.3)))
    z = torch.randn(2, 4, 9, 7)
    for term in head_loss(network.log_power(z), z, z + 0.3).values():
        assert float(term.detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(head_loss(network.log_power(z), z, z + 0.6)["snr_head"].detach()) == pytest.approx(
        0.4805, abs=1e-3
    )  # (ln 2)^2


def test_equal_latents_give_a_finite_loss() -> None:
    z = torch.randn(1, 4, 8, 8)
    assert all(bool(torch.isfinite(term)) for term in head_loss(head().log_power(z), z, z).values())


def test_the_head_learns_to_guess() -> None:
    network = head(hidden=12)
    descent = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(250):
        z_hr, z_lr = pairs(8, 16, seed=step)
        descent.zero_grad()
        torch.stack(list(head_loss(network.log_power(z_lr), z_lr, z_hr).values())).sum().backward()
        descent.step()
    z_hr, z_lr = pairs(64, 16, seed=10_000)
    truth, guess = paired_rho(z_lr, z_hr).log(), network(z_lr).detach()
    blind = float((truth - truth.mean()).abs().mean())
    assert float((guess - truth).abs().mean()) < 0.5 * blind
