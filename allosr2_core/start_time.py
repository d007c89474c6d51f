"""Where the one step starts: the time t* of a picture, by one of four methods, and what there is to say about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .checkpoint.config import AlloSR2Config
from .errors import AlloSR2Error
from .flow import t_from_rho
from .options import T_METHODS
from .snr import SNRHead, local_rho, log_rho, paired_map, paired_rho
from .tiling.exact import Tick

REBUILT: Mapping[str, float] = {"little": 0.4, "some": 0.75, "much": 1.15, "very much": math.inf}
"""Words for how much of a picture is rebuilt -> up to which time, in parts of the checkpoint's calibrated one.

They do not name the damage: fine detail that a sharp picture is too small to show raises t* like noise, and a blurred
picture, which promises less, has a lower one.
"""


@dataclass(frozen=True)
class TimestepEstimate:
    """Where the one step starts, and why."""

    t: Tensor
    """[B], within the trained range."""
    rho: Tensor
    """[B], RMS(z_L - z_H) measured or predicted; for "calibrated" and "manual" the value t stands for."""
    snr_db: Tensor
    """[B], 10 log10(E[z_L^2] / rho^2): signal-to-noise ratio of the input's latent."""
    report: str
    map: Tensor
    """[B, h, w] local rho per latent cell (constant where the method knows none)."""


def estimate_t(
    z_lr: Tensor,
    config: AlloSR2Config,
    head: SNRHead | None,
    method: str,
    z_hr: Tensor | None = None,
    manual: float | None = None,
    tick: Tick | None = None,
) -> TimestepEstimate:
    """The time t* of latents z_L [B, C, h, w] by one of `T_METHODS`; always within the trained range.

    "paired" needs z_hr of the same shape (an upper bound: it looks at the answer); "manual" needs a time in (0, 1).
    """
    batch = z_lr.shape[0]
    shape = (batch, *z_lr.shape[-2:])
    if method == "calibrated":
        raw_t = torch.full((batch,), config.t_star)
        local = None
    elif method == "predicted":
        powers = torch.cat([predicted_power(z, head, tick=tick).cpu() for z in z_lr.float().split(1)])
        raw_t = t_from_rho(log_rho(powers).exp())
        local = local_rho(powers, *z_lr.shape[2:])[:, 0]
    elif method == "paired":
        if z_hr is None:
            raise AlloSR2Error("expected a high-resolution reference for t method 'paired'; none is connected")
        raw_t = t_from_rho(paired_rho(z_lr, z_hr)).cpu()
        local = paired_map(z_lr, z_hr)[:, 0].cpu()
    elif method == "manual":
        if manual is None or not 0.0 < manual < 1.0:
            raise AlloSR2Error(f"expected a manual t between 0 and 1; got {manual}")
        raw_t = torch.full((batch,), float(manual))
        local = None
    else:
        raise AlloSR2Error(f"expected the t method to be one of {', '.join(T_METHODS)}; got {method!r}")
    t = config.clamp_t(raw_t)
    rho = raw_t / (1.0 - raw_t)
    power = z_lr.float().flatten(1).square().mean(dim=1).cpu()
    snr_db = 10.0 * torch.log10(power / rho.square().clamp(min=1e-12) + 1e-12)
    if local is None:
        local = rho[:, None, None].expand(shape)
    lines = [
        f"{method}: t* = {float(t[i]):.3f}{'' if t[i] == raw_t[i] else f' (clamped from {float(raw_t[i]):.3f})'}, "
        f"{rebuilt(float(raw_t[i]), config.t_star)} is rebuilt, "
        f"rho = {float(rho[i]):.3f}, SNR = {float(snr_db[i]):.1f} dB"
        for i in range(batch)
    ]
    lines.append(f"calibrated t* = {config.t_star:.3f}, trained range {config.t_min:.2f} to {config.t_max:.2f}")
    return TimestepEstimate(t=t, rho=rho, snr_db=snr_db, report="\n".join(lines), map=local)


def rebuilt(t: float, t_star: float) -> str:
    """The word of `REBUILT` for a time."""
    return next(word for word, part in REBUILT.items() if t <= part * t_star)


@torch.no_grad()
def predicted_power(
    z_1Chw: Tensor, head: SNRHead | None, features_1Chw: Tensor | None = None, *, tick: Tick | None = None
) -> Tensor:
    """What the SNR head sees in one z_L: `SNRHead.log_power_tiled`."""
    if head is None:
        raise AlloSR2Error("expected a checkpoint with an SNR head for t method 'predicted'; it has none")
    return head.log_power_tiled(z_1Chw, features_1Chw, tick)
