"""Flow-anchored trajectory consistency (FATC): velocity supervision along the SR path, anchored to the generative flow.

Our reading of the paper's section 3.3 (its Eqs. 9-10 were not at hand): the network is asked for the constant velocity
of the straight path between z_H and the start state at times drawn from (0, t*], and, so that the pre-trained flow
stays in the same field, for the generative velocity at all times.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..flow import Init, VelocityFn, interpolate, rms, sr_state, sr_velocity, velocity_target
from .registry import SRStep, loss


def fatc(velocity: VelocityFn, z_hr: Tensor, z_lr: Tensor, t_star: Tensor, s: Tensor, init: Init) -> dict[str, Tensor]:
    """{"fatc": E_s || v(z_s, s) - u ||^2 / max(1, E||u||^2 per sample)}.

    z_hr, z_lr: [B, C, h, w].  t_star: [B] each pair's own time.  s: [B] in (0, t*]. Gradients do not flow into z_lr:
    the target contains it, and an encoder could lower the loss by moving the target. The per-sample normaliser is about
    2 while t* is the pair's own and keeps a severe pair under a clamped t* from exploding.
    """
    z_lr = z_lr.detach()
    u = sr_velocity(z_hr, z_lr, t_star, init)
    v = velocity(sr_state(z_hr, z_lr, s, t_star, init), s)
    per_sample_B = (v - u).square().flatten(1).mean(dim=1)
    return {"fatc": (per_sample_B / rms(u).square().clamp(min=1.0)).mean()}


def anchor(velocity: VelocityFn, z_hr: Tensor, noise: Tensor, t: Tensor) -> dict[str, Tensor]:
    """{"anchor": E_t || v(z_t, t) - (e - z_H) ||^2}: plain flow matching on HR latents; also the prior's own loss."""
    v = velocity(interpolate(z_hr, noise, t), t)
    return {"anchor": (v - velocity_target(z_hr, noise)).square().mean()}


@torch.no_grad()
def curvature(velocity: VelocityFn, z_hr: Tensor, z_lr: Tensor, t_star: Tensor, s: Tensor, init: Init) -> Tensor:
    """C = E_s || v(z_s, s) - v(z_t*, t*) ||^2 / E||u||^2, a scalar: 0 when one step is exact along the true path."""
    u = sr_velocity(z_hr, z_lr, t_star, init)
    v_s = velocity(sr_state(z_hr, z_lr, s, t_star, init), s)
    v_start = velocity(sr_state(z_hr, z_lr, t_star, t_star, init), t_star)
    return (v_s - v_start).square().mean() / u.square().mean()


@loss("fatc", turn=0, thinned=True)
def _fatc(step: SRStep) -> dict[str, Tensor]:
    t_B = step.t_paired_B
    s_B = t_B * (1.0 - step.random.rand(t_B.shape[0]).to(t_B))
    return fatc(step.velocity, step.z_target, step.z_lr, t_B, s_B, step.init)


@loss("anchor", turn=0, thinned=True)
def _anchor(step: SRStep) -> dict[str, Tensor]:
    t_B = torch.sigmoid(step.random.randn(step.z_hr.shape[0])).to(step.z_hr)
    return anchor(step.velocity, step.z_hr, step.random.noise_like(step.z_hr), t_B)
