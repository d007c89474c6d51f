"""Stage 2: the generative prior, plain flow matching on high-resolution latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import VelocityFn, interpolate, x0_from_velocity
from allosr2_core.losses.fatc import anchor

from ..config import Config
from ..data.crops import PhotoCrops, derive_seed, training_crops
from ..loop.preview import Preview, psnr, to_picture, validation_crops
from ..loop.rng import BatchRandom
from ..loop.stage import Stage
from ..models.build import build_velocity, load_autoencoder

VALIDATION_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@torch.no_grad()
def flow_matching_error(velocity: VelocityFn, latents: Sequence[Tensor], seed: int = 0) -> float:
    """Mean anchor loss over fixed times and noise: how good a generative flow this still is (prior drift)."""
    rng = torch.Generator().manual_seed(seed)
    errors = []
    for z in latents:
        for t in VALIDATION_TIMES:
            noise = torch.randn(z.shape, generator=rng).to(z)
            errors.append(float(anchor(velocity, z, noise, torch.full((1,), t, device=z.device))["anchor"]))
    return sum(errors) / len(errors)


BOTH_FLOWS = 0.25
"""Share of the samples shown under the negative time, at which the SR stage later learns the flow of its own results:
those are close to photographs, so that flow starts as the generative one and not from nothing."""


class PriorStage(Stage):
    """Flow matching; the anchor loss of FATC is exactly this, so the SR stage can keep it alive."""

    name: ClassVar[str] = "prior"
    seed_name: ClassVar[str] = "prior"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.optim = config, config.stages.prior.optim
        if config.base.transformer:
            raise AlloSR2Error(
                f"expected no base for a prior of one's own; base.transformer is {config.base.transformer!r}"
            )
        torch.manual_seed(derive_seed(config.run.seed, self.seed_name))
        self.trained = nn.ModuleDict({"velocity": build_velocity(config).to(memory_format=torch.channels_last)})
        self.autoencoder = load_autoencoder(config)
        self.validation = [self.autoencoder.encode(x.mul(2).sub(1)) for x in validation_crops(config, 256)]

    def dataset(self, start: int) -> PhotoCrops:
        return training_crops(self.config, self.seed_name, start, self.optim.steps * self.optim.batch, degraded=False)

    @property
    def weights(self) -> dict[str, float]:
        return {"anchor": 1.0}

    def forward(self, batch: dict[str, Tensor], step: int, random: BatchRandom) -> dict[str, Tensor]:
        with torch.no_grad():
            z = self.autoencoder.encode(batch["hr"].mul(2).sub(1)).float()
        prior = self.config.stages.prior
        t_B = torch.sigmoid(random.randn(z.shape[0]) * prior.t_logit_std + prior.t_logit_mean).to(z)
        sign_B = torch.where(random.rand(z.shape[0]) < BOTH_FLOWS, -1.0, 1.0).to(z)
        velocity = self.trained["velocity"]
        return anchor(lambda z_t, t: velocity(z_t, sign_B * t), z, random.noise_like(z), t_B)

    @torch.no_grad()
    def preview(self) -> Preview:
        velocity, rows, figures = self.trained["velocity"], [], []
        rng = torch.Generator().manual_seed(0)
        latents = [z.to(self.device) for z in self.validation]
        for z in latents[:6]:
            row = []
            for t in (0.2, 0.4, 0.6):
                t_B = torch.full((1,), t, device=z.device)
                z_t = interpolate(z, torch.randn(z.shape, generator=rng).to(z), t_B)
                row.append(self._pixels(x0_from_velocity(z_t, velocity(z_t, t_B), t_B)))
            truth = self._pixels(z)
            figures.append(psnr(row[0], truth))
            rows.append([*row, truth])
        error = flow_matching_error(velocity, latents)
        return Preview({"flow_matching": error, "denoise_psnr_t0.2": sum(figures) / len(figures)}, rows)

    def _pixels(self, z: Tensor) -> Tensor:
        return to_picture(self.autoencoder.decode(z))
