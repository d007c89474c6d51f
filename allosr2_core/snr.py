"""How degraded is this latent? rho = RMS(z_L - z_H), its time t* = rho / (1 + rho), and a head that guesses it.

The paper finds one global t* from the second-order statistics of paired latents (its Eq. 6); a time per image, and the
head that predicts it, are this project's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import AlloSR2Error
from .flow import rms, t_from_rho


@dataclass(frozen=True)
class SNRHeadParams:
    """Architecture of `SNRHead`."""

    latent_channels: int
    """Channels of z_L."""
    hidden: int
    """Width of its convolutions."""
    levels: int
    """How often the resolution is halved; the error map has the coarsest one."""

    def __post_init__(self) -> None:
        if self.latent_channels < 1 or self.hidden < 1:
            raise AlloSR2Error(f"expected positive widths; got {self}")
        if not 1 <= self.levels <= 6:
            raise AlloSR2Error(f"expected 1 to 6 levels; got {self}")


def _conv3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, padding_mode="replicate")
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # torch's own shrinks the signal from layer to layer
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class HeadBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))); the second convolution starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv3(channels, channels), _conv3(channels, channels)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class SNRHead(nn.Module):
    """z_L [B, C, h, w] -> log rho [B]. Predicts a coarse map of the error; rho is its root mean square."""

    def __init__(self, params: SNRHeadParams) -> None:
        super().__init__()
        self.params = params
        c = params.hidden
        self.conv_in = _conv3(params.latent_channels, c)
        self.shrink = nn.ModuleList(_conv3(c, c, stride=2) for _ in range(params.levels))
        self.blocks = nn.ModuleList(HeadBlock(c) for _ in range(params.levels))
        # Noise and blocking are alike everywhere in a picture, and clearer together: a global summary helps each cell.
        self.summary = nn.Linear(2 * c, c)
        self.last = HeadBlock(c)
        self.out = nn.Conv2d(c, 1, 1)

    @property
    def downscale(self) -> int:
        """Latent cells along one side of a cell of the map."""
        return 2**self.params.levels

    @property
    def radius(self) -> int:
        """How far, in cells of the map, a cell of `features` depends on z_L."""
        cells = 1 + sum(2**level + 2 * 2 ** (level + 1) for level in range(self.params.levels))
        return -(-cells // self.downscale)

    def log_power(self, z_lr: Tensor) -> Tensor:
        """log of the local mean squared error, [B, 1, h', w'], h' = ceil(h / 2^levels)."""
        return self.log_power_of(self.features(z_lr))

    def features(self, z_lr: Tensor) -> Tensor:
        """z_L -> [B, hidden, h', w']: the part that sees no more than its surroundings."""
        if z_lr.ndim != 4 or z_lr.shape[1] != self.params.latent_channels:
            raise AlloSR2Error(
                f"expected z_L of shape [B, {self.params.latent_channels}, h, w]; got {tuple(z_lr.shape)}"
            )
        h = self.conv_in(z_lr)
        for shrink, block in zip(self.shrink, self.blocks, strict=True):
            h = block(shrink(F.silu(h)))
        return h

    def log_power_of(self, h: Tensor) -> Tensor:
        """`log_power` from the features of the whole picture."""
        mean_B2C = torch.cat([h.mean(dim=(2, 3)), h.square().mean(dim=(2, 3)).add(1e-6).sqrt()], dim=1)
        h = self.last(h + self.summary(mean_B2C)[:, :, None, None])
        return self.out(F.silu(h)).float().clamp(-14.0, 6.0)

    def forward(self, z_lr: Tensor) -> Tensor:
        return log_rho(self.log_power(z_lr))

    def local_map(self, z_lr: Tensor) -> Tensor:
        """Local rho, [B, 1, h, w] at the size of z_L."""
        rho = (0.5 * self.log_power(z_lr)).exp()
        return F.interpolate(rho, size=z_lr.shape[-2:], mode="bilinear", align_corners=False)


def paired_rho(z_lr: Tensor, z_hr: Tensor) -> Tensor:
    """rho = RMS(z_L - z_H) of each pair, [B], fp32."""
    if z_lr.shape != z_hr.shape:
        raise AlloSR2Error(f"expected latents of one shape; got {tuple(z_lr.shape)} and {tuple(z_hr.shape)}")
    return rms(z_lr - z_hr)


def log_rho(log_power: Tensor) -> Tensor:
    """log rho of a map of log power, [B, 1, h', w'] -> [B]."""
    return 0.5 * log_power.flatten(1).exp().mean(dim=1).log()


def head_loss(log_power: Tensor, z_lr: Tensor, z_hr: Tensor) -> dict[str, Tensor]:
    """{"snr_head": mean squared error of log rho, "snr_map": of the local log power}; the latents are the truth.

    log_power: `SNRHead.log_power` of z_L, computed without a gradient into it.
    """
    error = (z_lr - z_hr).detach().float()
    local = (
        F.adaptive_avg_pool2d(error.square().mean(dim=1, keepdim=True), (log_power.shape[-2], log_power.shape[-1]))
        .clamp(min=1e-6)
        .log()
    )
    target_B = rms(error).clamp(min=1e-4).log()
    return {"snr_head": (log_rho(log_power) - target_B).square().mean(), "snr_map": (log_power - local).square().mean()}


def calibrated_t(rho_N: Tensor) -> float:
    """One global t* for a set of pairs, from the root mean square of their rho (the paper's Eq. 6, our reading)."""
    if rho_N.numel() == 0:
        raise AlloSR2Error("expected at least one pair to calibrate t*; got none")
    return float(t_from_rho(rho_N.square().mean().sqrt()))
