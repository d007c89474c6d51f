"""The flow convention of the whole project, and everything that follows from it in closed form.

Time t runs from data (t = 0) to noise (t = 1) along straight lines, as in FLUX.1:

    z_t = (1 - t) z_0 + t e        v = dz_t/dt = e - z_0        z_0 = z_t - t v

Symbols: z_H, z_L are the latents of the high- and low-resolution picture, rho = RMS(z_L - z_H), and t* is the time at
which a flow state has the signal-to-noise ratio of z_L. Latents are the VAE's *scaled* latents, [B, C, h, w]; times are
[B] tensors (or Python floats where noted). The derivations stand in section 1-4 of the method notes; equations of the
paper (arXiv 2604.19238, Eqs. 6-10) were not at hand, so this is our reading of its section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from .errors import AlloSR2Error

VelocityFn = Callable[[Tensor, Tensor], Tensor]
"""velocity(z_BCHW, t_B) -> v_BCHW. t > 0 is the generative flow, t < 0 the flow of the SR outputs (ATM)."""

Init = Literal["aligned", "raw"]
INITS: tuple[Init, ...] = ("aligned", "raw")


def expand(t: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1] in the dtype of `like`, so that per-sample times multiply latents."""
    if t.ndim != 1 or t.shape[0] not in (1, like.shape[0]):
        raise AlloSR2Error(f"expected one time per sample, shape [{like.shape[0]}]; got {tuple(t.shape)}")
    return t.to(device=like.device, dtype=like.dtype).reshape(-1, *([1] * (like.ndim - 1)))


def rms(x: Tensor) -> Tensor:
    """Root mean square of each sample: [B, ...] -> [B], fp32."""
    return x.float().flatten(1).square().mean(dim=1).sqrt()


# --- the path -----------------------------------------------------------------------------------------------------


def interpolate(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The state z_t = (1 - t) x0 + t noise."""
    t_B111 = expand(t, x0)
    return (1.0 - t_B111) * x0 + t_B111 * noise


def velocity_target(x0: Tensor, noise: Tensor) -> Tensor:
    """dz_t/dt = noise - x0, constant along the path."""
    return noise - x0


def x0_from_velocity(z_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """The data end of the line through z_t with slope v."""
    return z_t - expand(t, z_t) * v


def noise_from_velocity(z_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """The noise end of the line through z_t with slope v."""
    return z_t + (1.0 - expand(t, z_t)) * v


def score_from_velocity(z_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """grad log p_t(z_t) = -(z_t + (1 - t) v) / t, i.e. minus the predicted noise over its standard deviation."""
    return -noise_from_velocity(z_t, v, t) / expand(t, z_t)


def linear_velocity(t: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Best linear guess of the velocity, v = a z_t, for data of this variance; and the deviation it leaves.

    a = Cov(v, z_t) / Var(z_t) = (t - (1 - t) variance) / d,  deviation = sqrt(variance / d),  d = Var(z_t) =
    (1 - t)^2 variance + t^2: the Wiener filter, told as a velocity. Where there is no signal a = 1 / t: all of the
    state is noise. Shapes broadcast; a negative time counts as its size.
    """
    u = t.abs()
    power = (1.0 - u).square() * variance + u.square()
    return (u - (1.0 - u) * variance) / power, (variance / power).sqrt()


# --- signal-to-noise ratio ----------------------------------------------------------------------------------------


def snr(t: Tensor, signal_power: Tensor | float) -> Tensor:
    """SNR of the flow state at t: ((1 - t) / t)^2 E[z_H^2], for unit-variance noise. A power ratio, not decibels."""
    return ((1.0 - t) / t).square() * signal_power


def t_from_rho(rho: Tensor) -> Tensor:
    """The time whose SNR equals that of z_L = z_H + r with RMS(r) = rho: t* = rho / (1 + rho).

    Equal SNR means ((1-t)/t)^2 E[z_H^2] = E[z_H^2] / rho^2; the signal power cancels. Raises on rho < 0.
    """
    if bool((rho < 0).any()):
        raise AlloSR2Error(f"expected rho >= 0 (an RMS distance); got {float(rho.min()):.4g}")
    return rho / (1.0 + rho)


def rho_from_t(t: Tensor) -> Tensor:
    """Inverse of `t_from_rho`: rho = t / (1 - t), for t in [0, 1)."""
    return t / (1.0 - t)


# --- the SR flow --------------------------------------------------------------------------------------------------


def check_init(init: str) -> None:
    """Raise unless `init` names one of the two starting points."""
    if init not in INITS:
        raise AlloSR2Error(f"expected init to be one of {INITS}; got {init!r}")


def start_state(z_lr: Tensor, t: Tensor, init: Init) -> Tensor:
    """Where the one step starts. "aligned": (1 - t*) z_L, itself a state of the flow at t*. "raw": z_L as it is."""
    check_init(init)
    return (1.0 - expand(t, z_lr)) * z_lr if init == "aligned" else z_lr


def sr_state(z_hr: Tensor, z_lr: Tensor, s: Tensor, t_star: Tensor, init: Init) -> Tensor:
    """The state of the SR path at time s in [0, t*]; at s = t* it equals `start_state`, at s = 0 it is z_H.

    aligned: (1 - s) z_H + s e_L with e_L = (z_L - z_H) / rho and rho = t*/(1 - t*);  raw: z_H + (s/t*)(z_L - z_H).
    """
    check_init(init)
    if init == "raw":
        return z_hr + expand(s / t_star, z_hr) * (z_lr - z_hr)
    return interpolate(z_hr, (z_lr - z_hr) / expand(rho_from_t(t_star), z_hr), s)


def sr_velocity(z_hr: Tensor, z_lr: Tensor, t_star: Tensor, init: Init) -> Tensor:
    """The velocity of that path, constant in s. aligned: e_L - z_H;  raw: (z_L - z_H) / t*."""
    check_init(init)
    if init == "raw":
        return (z_lr - z_hr) / expand(t_star, z_hr)
    return (z_lr - z_hr) / expand(rho_from_t(t_star), z_hr) - z_hr


# --- integration --------------------------------------------------------------------------------------------------


def one_step(velocity: VelocityFn, z_t: Tensor, t: Tensor) -> Tensor:
    """One Euler step from t to 0: z_0 = z_t - t v(z_t, t). The paper's single evaluation (its Eq. 7, our notation)."""
    return x0_from_velocity(z_t, velocity(z_t, t), t)


@torch.no_grad()
def euler(velocity: VelocityFn, z_t: Tensor, t: Tensor, steps: int) -> Tensor:
    """`steps` equal Euler steps from t to 0; steps = 1 is `one_step`. Used to measure how straight the path is."""
    if steps < 1:
        raise AlloSR2Error(f"expected steps >= 1; got {steps}")
    z, dt = z_t, t / steps
    for i in range(steps):
        z = z - expand(dt, z) * velocity(z, t - i * dt)
    return z
