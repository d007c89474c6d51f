"""The SR stage from starts that the method does not take, for comparison."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import interpolate

from ..config import Config
from ..config_limits import Share
from ..loop.rng import BatchRandom
from ..stages.sr import SRStage


@dataclass(frozen=True)
class Start:
    """Where the steps of a variant start, if not as the method has it."""

    t_fixed: Share = 0.0
    """One time for every picture, instead of each its own; 0 = each its own."""
    start_noise: bool = False
    """Whether steps start from (1 - t) z_L + t e with Gaussian noise e, as samplers do, instead of from z_L; needs
    init "raw", whose path leads from whatever state one starts at."""


START_KEYS = {field.name for field in dataclasses.fields(Start)}


class VariantStage(SRStage):
    """The SR stage from another start."""

    def __init__(self, config: Config, start: Start) -> None:
        if start.start_noise and config.stages.sr.init != "raw":
            raise AlloSR2Error(f"start_noise: expected init 'raw'; got {config.stages.sr.init!r}")
        self.start = start
        super().__init__(config)

    def paired_time(self, z_lr: Tensor, z_hr: Tensor) -> Tensor:
        """The fixed time, if there is one: its path is the one that is made straight."""
        return self._fixed(super().paired_time(z_lr, z_hr))

    def predicted_time(self, log_rho_B: Tensor) -> Tensor:
        """The fixed time, if there is one."""
        return self._fixed(super().predicted_time(log_rho_B))

    def start_times(self, t_paired_B: Tensor, t_predicted_B: Tensor, random: BatchRandom) -> Tensor:
        """The fixed time without jitter, if there is one."""
        if self.start.t_fixed:
            return t_predicted_B
        return super().start_times(t_paired_B, t_predicted_B, random)

    def start_latent(self, z_lr: Tensor, t_B: Tensor, random: BatchRandom) -> Tensor:
        """z_L, or the noised state of it that a sampler would start from."""
        return interpolate(z_lr, random.noise_like(z_lr), t_B) if self.start.start_noise else z_lr

    def _fixed(self, t_B: Tensor) -> Tensor:
        return torch.full_like(t_B, self.start.t_fixed) if self.start.t_fixed else t_B
