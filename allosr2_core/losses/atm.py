"""Allomorphic trajectory matching (ATM): pull the distribution of one-step results onto the generative prior.

One network carries two flows, told apart by the sign of its time: +t the generative flow, -t the flow of the SR outputs
(our reading of the paper's section 3.4; its Eqs. 11-12 were not at hand). With both scores known at a noised output,
their difference is the gradient of KL(p_SR || p_gen): no discriminator is needed (distribution matching distillation).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..flow import VelocityFn, expand, interpolate, score_from_velocity, velocity_target, x0_from_velocity
from .registry import SRStep, loss

NORMALISER_FLOOR = 1e-3


def fake_flow(velocity: VelocityFn, z_hat: Tensor, noise: Tensor, t: Tensor) -> dict[str, Tensor]:
    """{"atm_fake": || v(z_t, -t) - (e - sg zhat) ||^2}: the model learns the flow of its own, detached outputs."""
    z_hat = z_hat.detach()
    v = velocity(interpolate(z_hat, noise, t), -t)
    return {"atm_fake": (v - velocity_target(z_hat, noise)).square().mean()}


def kl_gradient(z_t: Tensor, v_fake: Tensor, v_real: Tensor, t: Tensor) -> Tensor:
    """Score difference s_fake - s_real at z_t, the gradient of KL(p_SR || p_gen) in the output up to a positive weight.

    s = -(z + (1 - t) v) / t, so it equals -((1 - t) / t) (v_fake - v_real).
    """
    return score_from_velocity(z_t, v_fake, t) - score_from_velocity(z_t, v_real, t)


@torch.no_grad()
def match_direction(z_hat: Tensor, z_t: Tensor, v_fake: Tensor, v_real: Tensor, t: Tensor) -> Tensor:
    """The normalised step g: the score difference with its 1/t growth taken out, over mean |zhat - x0_real|.

    w = t^2 / (1 - t) / mean|zhat - x0_real| per sample. Since x0 = z_t - t v, this makes g exactly
    (x0_fake - x0_real) / mean|zhat - x0_real|: the disagreement of the two denoised pictures, in units of the prior's
    own correction, as in distribution matching distillation. Shapes [B, C, h, w], t [B].
    """
    x0_real = x0_from_velocity(z_t, v_real, t)
    scale_B = (z_hat - x0_real).abs().flatten(1).mean(dim=1).clamp(min=NORMALISER_FLOOR)
    weight_B = t.square() / (1.0 - t).clamp(min=NORMALISER_FLOOR) / scale_B
    return expand(weight_B, z_hat) * kl_gradient(z_t, v_fake, v_real, t)


def match(z_hat: Tensor, noise: Tensor, t: Tensor, fake: VelocityFn, real: VelocityFn) -> dict[str, Tensor]:
    """{"atm_match": 1/2 || zhat - sg(zhat - g) ||^2}: its gradient in zhat is g / numel, whatever its value.

    fake, real: velocity fields called with the same state and time (the caller negates t for the shared network).
    """
    with torch.no_grad():
        z_t = interpolate(z_hat, noise, t)
        g = match_direction(z_hat, z_t, fake(z_t, t), real(z_t, t), t)
    return {"atm_match": 0.5 * (z_hat - (z_hat - g).detach()).square().mean()}


def _times_and_noise(step: SRStep) -> tuple[Tensor, Tensor]:
    low, high = step.atm_t
    z = step.z_hr
    return (low + (high - low) * step.random.rand(z.shape[0])).to(z), step.random.noise_like(z)


@loss("atm_fake", turn=1, thinned=True)
def _fake_flow(step: SRStep) -> dict[str, Tensor]:
    t_B, noise = _times_and_noise(step)
    return fake_flow(step.velocity, step.z_hat, noise, t_B)


@loss("atm_match", turn=1, thinned=True)
def _match(step: SRStep) -> dict[str, Tensor]:
    t_B, noise = _times_and_noise(step)
    return match(step.z_hat, noise, t_B, fake=lambda z_t, t: step.velocity(z_t, -t), real=step.prior)
