"""The small velocity network: any size, signed time, zero start, and the receptive field it claims."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import interpolate, linear_velocity, x0_from_velocity
from allosr2_core.networks.unet import UNetParams, VelocityUNet, time_embedding

SMALL = UNetParams(latent_channels=3, channels=(4, 6, 8), blocks=(1, 1, 1), time_dim=8, preconditioned=False)


def shaken(params: UNetParams, seed: int = 0) -> VelocityUNet:
    """A network whose every layer has an effect."""
    torch.manual_seed(seed)
    network = VelocityUNet(params).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@given(height=st.integers(1, 21), width=st.integers(1, 21), batch=st.integers(1, 3))
@settings(max_examples=25)
def test_any_size_comes_back_in_its_size(height: int, width: int, batch: int) -> None:
    z = latents(batch, 3, height, width)
    v = shaken(SMALL)(z, torch.full((batch,), 0.3))
    assert v.shape == z.shape
    assert bool(torch.isfinite(v).all())


def test_a_fresh_network_is_silent_and_still_learns() -> None:
    torch.manual_seed(0)
    network = VelocityUNet(SMALL)
    v = network(latents(2, 3, 8, 8), torch.tensor([0.2, 0.9]))
    assert float(v.detach().abs().max()) == 0.0
    (v - 1.0).square().mean().backward()
    gradient = network.conv_out.weight.grad
    assert gradient is not None and float(gradient.abs().max()) > 0.0


def test_the_sign_of_time_tells_two_flows_apart() -> None:
    network, z = shaken(SMALL), latents(1, 3, 8, 8)
    for t in (0.03, 0.3, 1.0):
        there, back = network(z, torch.tensor([t])), network(z, torch.tensor([-t]))
        assert float((there - back).abs().max()) > 1e-3


@given(st.floats(0.001, 1.0))
@settings(max_examples=30)
def test_the_time_embedding_is_even_and_odd_in_halves_and_never_alike(t: float) -> None:
    plus, minus = (time_embedding(torch.tensor([sign * t]), 16)[0] for sign in (1.0, -1.0))
    torch.testing.assert_close(plus[:8], minus[:8])
    torch.testing.assert_close(plus[8:], -minus[8:])
    assert float((plus - minus).abs().max()) > 1e-3


def test_every_sample_has_its_own_time_and_no_neighbours() -> None:
    network, z, t = shaken(SMALL), latents(3, 3, 9, 6), torch.tensor([0.1, -0.4, 0.8])
    together = network(z, t)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], network(z[i : i + 1], t[i : i + 1]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network(z, torch.tensor([0.1])), network(z, torch.full((3,), 0.1)))


@pytest.mark.parametrize(
    "params",
    [
        replace(SMALL, channels=(4,), blocks=(1,)),
        replace(SMALL, channels=(4, 4), blocks=(1, 1)),
        replace(SMALL, blocks=(2, 1, 1)),
        SMALL,
    ],
)
def test_nothing_beyond_the_radius_is_seen(params: UNetParams) -> None:
    """One cell changes: outputs farther than `radius` stay equal to the bit, and the change does spread that way."""
    network, radius = shaken(params), params.radius
    side = 2 * radius + 3 * params.stride
    z, t = latents(1, 3, side, side), torch.tensor([0.3])
    before = network(z, t)
    reached = 0
    for place in range(params.stride):  # every phase of the grid of strides
        y = radius + params.stride + place
        changed = z.clone()
        changed[:, :, y, y] += 5.0
        differs = ((network(changed, t) - before).abs() > 1e-6).any(dim=1)[0].nonzero()
        reached = max(reached, int((differs - y).abs().max()))
    assert reached <= radius
    assert reached >= radius // 2  # a bound, and not a wildly large one


def test_a_window_with_enough_context_gives_the_same_values() -> None:
    network, radius = shaken(SMALL), SMALL.radius
    stride = SMALL.stride
    margin = -(-radius // stride) * stride
    z, t = latents(1, 3, 2 * margin + 12, 2 * margin + 8), torch.tensor([0.3])
    window = network(z[:, :, stride:, stride:], t)
    torch.testing.assert_close(
        window[:, :, margin:, margin:], network(z, t)[:, :, stride + margin :, stride + margin :]
    )


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (3, 8, 8), (1, 3, 8)])
def test_other_latents_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AlloSR2Error, match=r"\[B, 3, H, W\]"):
        VelocityUNet(SMALL)(torch.zeros(shape), torch.tensor([0.3]))


@pytest.mark.parametrize(
    "change",
    [
        {"channels": (4, 6)},
        {"channels": (), "blocks": ()},
        {"time_dim": 7},
        {"time_dim": 0},
        {"latent_channels": 0},
        {"channels": (4, 0, 8)},
        {"blocks": (1, 0, 1)},
    ],
)
def test_impossible_architectures_are_refused(change: dict) -> None:
    with pytest.raises(AlloSR2Error, match="expected"):
        replace(SMALL, **change)


def test_a_fresh_preconditioned_network_gives_the_linear_guess_for_unit_variance() -> None:
    network, z = VelocityUNet(replace(SMALL, preconditioned=True)), latents(2, 3, 9, 7)
    t = torch.tensor([0.2, -0.9])
    with torch.no_grad():
        linear, deviation = linear_velocity(t[:, None, None, None], torch.ones(1))
        torch.testing.assert_close(network(z, t), linear * z)
        bias = network.conv_out.bias
        assert bias is not None
        bias[:3] = 1.0  # the velocity part
        torch.testing.assert_close(network(z, t), linear * z + deviation)
        bias[3:] = math.log(0.01)  # the log variance part
        linear, deviation = linear_velocity(t[:, None, None, None], torch.tensor(0.01))
        torch.testing.assert_close(network(z, t), linear * z + deviation)


def test_a_preconditioned_network_that_sees_no_signal_removes_the_noise() -> None:
    """The one step from pure noise at any time ends at zero: nothing of the state is left."""
    network = VelocityUNet(replace(SMALL, preconditioned=True))
    with torch.no_grad():
        network.conv_out.bias[3:] = -100.0  # pyright: ignore[reportOptionalSubscript] - clamped to no signal
        for t in (0.1, 0.6, 1.0):
            times = torch.full((2,), t)
            z_t = t * latents(2, 3, 8, 8)
            assert float(x0_from_velocity(z_t, network(z_t, times), times).abs().max()) < 2e-3


def test_preconditioning_gives_the_layers_inputs_of_unit_variance() -> None:
    seen: list[Tensor] = []
    network = VelocityUNet(replace(SMALL, preconditioned=True))
    network.conv_in.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x0, noise = latents(4, 3, 64, 64), torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    for t in (0.05, 0.5, 0.9):
        with torch.no_grad():
            network(interpolate(x0, noise, torch.full((4,), t)), torch.full((4,), t))
        assert float(seen[-1].std()) == pytest.approx(1.0, abs=0.02)
