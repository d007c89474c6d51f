"""The texture term on pictures whose band energies are known."""

import math

import pytest
import torch
from torch import Tensor

from allosr2_core.losses.texture import NOISE_FLOOR, WINDOW, band_energies, texture_energy


def noise(seed: int, amplitude: float = 0.3, side: int = 128) -> Tensor:
    return amplitude * torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def wave(period: int, phase: float = 0.0, side: int = 128) -> Tensor:
    """A grey horizontal cosine of amplitude 0.5, [1, 3, side, side]."""
    x = torch.arange(side) * (2 * math.pi / period) + phase
    return (0.5 * x.cos()).expand(1, 3, side, side)


def test_a_picture_has_its_own_texture_and_the_gradient_there_is_finite() -> None:
    x = noise(0).requires_grad_(True)
    term = texture_energy(x, x.detach())["texture"]
    term.backward()
    assert float(term.detach()) == 0.0
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_other_noise_of_the_same_strength_is_the_same_texture() -> None:
    """What a distance between pictures punishes, and why it blurs; compare both on the same pictures."""
    hr, other, blurred = noise(0), noise(1), 0.1 * noise(0)
    assert float((other - hr).square().mean()) > float((blurred - hr).square().mean())
    assert float(texture_energy(other, hr)["texture"]) < 0.1 * float(texture_energy(blurred, hr)["texture"])


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0])
def test_the_unit_is_nepers_of_energy(factor: float) -> None:
    """Amplitude times f is energy times f^2: |2 log f|, with the noise floor negligible at this amplitude."""
    hr = noise(0, amplitude=0.5)
    assert float(texture_energy(factor * hr, hr)["texture"]) == pytest.approx(abs(2 * math.log(factor)), rel=0.05)


def test_what_is_below_the_noise_floor_does_not_count() -> None:
    flat = torch.zeros(1, 3, 128, 128)
    faint = noise(0, amplitude=0.1 * NOISE_FLOOR)[:1]
    assert float(texture_energy(faint, flat)["texture"]) < 0.02
    assert float(texture_energy(noise(0, amplitude=0.05)[:1], flat)["texture"]) > 0.5


@pytest.mark.parametrize(("period", "band"), [(2, 0), (8, 1), (16, 2)])
def test_a_wave_lands_in_its_octave_whatever_its_phase(period: int, band: int) -> None:
    """The energy of a band is that of waves of 2^(band+1) to 2^(band+2) px; the phase only moves it between windows."""
    for phase in (0.0, 0.7):
        energies = torch.stack([e.mean() for e in band_energies(wave(period, phase), 3)])
        assert int(energies.argmax()) == band


def test_texture_must_be_where_the_photograph_has_it() -> None:
    left = noise(0)
    left[..., 64:] = 0.0
    right = left.flip(-1)
    assert float(texture_energy(right, left)["texture"]) > 2.0


def test_a_step_down_the_gradient_adds_detail_to_a_blurred_picture_and_takes_it_from_a_noisy_one() -> None:
    hr = noise(0)
    for start in (0.2 * noise(1), 3.0 * noise(1)):
        x = start.clone().requires_grad_(True)
        before = texture_energy(x, hr)["texture"]
        (gradient,) = torch.autograd.grad(before, x)
        after = texture_energy(x - 1e-3 * gradient / gradient.abs().max(), hr)["texture"]
        assert float(after.detach()) < float(before.detach())


def test_odd_sizes_and_the_smallest_one() -> None:
    side = WINDOW * 4
    assert float(texture_energy(noise(0, side=side + 3), noise(1, side=side + 3))["texture"].detach()) > 0
    assert [tuple(e.shape[-2:]) for e in band_energies(noise(0, side=side), 3)] == [(7, 7), (3, 3), (1, 1)]
