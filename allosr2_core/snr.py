"""How degraded is this latent? rho = RMS(z_L - z_H), its time t* = rho / (1 + rho), and a head that guesses it.

The paper finds one global t* from the second-order statistics of paired latents (its Eq. 6); a time per image, and the
head that predicts it, are this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dataclass_reader import check_fields
from .errors import AlloSR2Error
from .flow import rms, t_from_rho
from .networks.activation import silu_of_own
from .precision import convert_convolutions
from .ranges import Range
from .tiling.exact import Tick, exact_tile_count, exact_tiles, window_of

TILE = 16
"""Side, in cells of its map, of the tiles that the head takes a whole picture in by; 24 where values have two bytes."""
LAST_RADIUS = 2
"""Cells around one that the layers after the features see."""


@dataclass(frozen=True)
class SNRHeadParams:
    """Architecture of `SNRHead`."""

    latent_channels: Annotated[int, Range(1, 1024)]
    """Channels of z_L."""
    hidden: Annotated[int, Range(1, 8192)]
    """Width of its convolutions."""
    levels: Annotated[int, Range(1, 6)]
    """How often the resolution is halved; the error map has the coarsest one."""

    def __post_init__(self) -> None:
        check_fields(self)


def _conv3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, padding_mode="replicate")
    if not conv.weight.is_meta:  # for which torch would load its compiler, to draw no numbers: a second of every start
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
        return self.conv2(silu_of_own(self.conv1(F.silu(x)))).add_(x)


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

    def compute_in(self, dtype: torch.dtype) -> None:
        """Convert the convolutions' weights once; the summary and the last layer, which give the number, stay fp32."""
        convert_convolutions(self, dtype, keep=(self.out,))

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
        h = self.features(z_lr)
        means_BC = h.mean(dim=(2, 3), dtype=torch.float32), h.float().square().mean(dim=(2, 3))
        return self._from_summary(h, self._summary(*means_BC))

    def features(self, z_lr: Tensor) -> Tensor:
        """z_L -> [B, hidden, h', w']: the part that sees no more than its surroundings."""
        if z_lr.ndim != 4 or z_lr.shape[1] != self.params.latent_channels:
            raise AlloSR2Error(
                f"expected z_L of shape [B, {self.params.latent_channels}, h, w]; got {tuple(z_lr.shape)}"
            )
        h = self.conv_in(z_lr.to(self.conv_in.weight.dtype))
        for shrink, block in zip(self.shrink, self.blocks, strict=True):
            h = block(shrink(silu_of_own(h)))
        return h

    def _summary(self, mean_BC: Tensor, power_BC: Tensor) -> Tensor:
        return self.summary(torch.cat([mean_BC, power_BC.add(1e-6).sqrt()], dim=1))[:, :, None, None]

    def _from_summary(self, h: Tensor, summary_BC11: Tensor) -> Tensor:
        h = self.last((h + summary_BC11).to(self.last.conv1.weight.dtype))
        return self.out(silu_of_own(h).to(self.out.weight.dtype)).float().clamp(-14.0, 6.0)

    def features_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h', w') of the features of a latent of this size."""
        return self.params.hidden, -(-height // self.downscale), -(-width // self.downscale)

    @property
    def tile(self) -> int:
        """Side, in cells of the map, of the tiles a whole picture is taken in by."""
        return TILE if self.conv_in.weight.element_size() > 2 else TILE * 3 // 2

    def ticks(self, height: int, width: int) -> int:
        """How often `log_power_tiled` ticks for a latent of height x width cells."""
        _, rows, columns = self.features_shape(height, width)
        return 2 * exact_tile_count(rows, columns, self.tile)

    def log_power_tiled(self, z_1Chw: Tensor, features_1Chw: Tensor | None = None, tick: Tick | None = None) -> Tensor:
        """`log_power` of one item, tile by tile but for rounding; `features_1Chw` is memory for `features_shape`.

        The weights may be on another device than z: tiles go there and come back.
        """
        channels, height, width = self.features_shape(*z_1Chw.shape[2:])
        h = z_1Chw.new_empty((1, channels, height, width)) if features_1Chw is None else features_1Chw
        sums_2C = torch.zeros(2, channels, dtype=torch.float64, device=h.device)
        near, far = self.conv_in.weight.device, h.device

        def features(window: Tensor) -> Tensor:
            return self.features(window.to(near)).to(far)

        def last(window: Tensor) -> Tensor:
            return self._from_summary(window.to(near), summary_BC11).to(far)

        window, scale, side = window_of(z_1Chw), 1.0 / self.downscale, self.tile
        for rows, cols, part in exact_tiles(features, window, height, width, side, self.radius, scale, tick):
            h[:, :, rows, cols] = part
            values = part.float()
            sums_2C += torch.stack([values, values.square()]).sum(dim=(1, 3, 4), dtype=torch.float64)
        mean_C, power_C = (sums_2C / (height * width)).to(near, h.dtype)
        summary_BC11 = self._summary(mean_C[None], power_C[None])
        result = h.new_empty((1, 1, height, width), dtype=torch.float32)
        for rows, cols, part in exact_tiles(last, window_of(h), height, width, side, LAST_RADIUS, 1.0, tick):
            result[:, :, rows, cols] = part
        return result

    def forward(self, z_lr: Tensor) -> Tensor:
        return log_rho(self.log_power(z_lr))

    def local_map(self, z_lr: Tensor) -> Tensor:
        """Local rho, [B, 1, h, w] at the size of z_L."""
        return local_rho(self.log_power(z_lr), z_lr.shape[2], z_lr.shape[3])


def paired_rho(z_lr: Tensor, z_hr: Tensor) -> Tensor:
    """rho = RMS(z_L - z_H) of each pair, [B], fp32."""
    if z_lr.shape != z_hr.shape:
        raise AlloSR2Error(f"expected latents of one shape; got {tuple(z_lr.shape)} and {tuple(z_hr.shape)}")
    return rms(z_lr - z_hr)


def paired_map(z_lr: Tensor, z_hr: Tensor) -> Tensor:
    """Local rho of each pair, [B, C, h, w] -> [B, 1, h, w], fp32."""
    return (z_lr - z_hr).float().square().mean(dim=1, keepdim=True).sqrt()


def local_rho(log_power: Tensor, height: int, width: int) -> Tensor:
    """Local rho of a map of log power, [B, 1, h', w'] -> [B, 1, height, width]."""
    return F.interpolate((0.5 * log_power).exp(), size=(height, width), mode="bilinear", align_corners=False)


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
