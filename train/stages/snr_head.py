"""Stage 4: the SNR head alone, on larger crops, on the encoder as the SR stage left it.

While the SR stage trains, the head chases an encoder that moves. Alone it costs little: neither the flow nor a feature
network runs. Where z_L does not tell how much detail was lost, the head falls back on the mean of its crops: `zoom` and
`flat_share` decide how high it guesses, and should suit the pictures that will be enlarged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from allosr2_core.flow import t_from_rho
from allosr2_core.snr import SNRHead, head_loss, paired_map, paired_rho

from ..config import Config
from ..data.crops import PhotoCrops, bicubic_up, derive_seed, training_crops
from ..data.degradation import SCALE, STRENGTHS, degrade
from ..loop.preview import Preview, validation_crops
from ..loop.rng import BatchRandom
from ..loop.stage import Stage
from ..loop.state import load_export, stage_folder
from ..models.build import build_snr_head
from ..models.trainable import trainable_autoencoder

VALIDATION_SIDE = 512

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A validation pair."""

    lr: Tensor
    """[1, 3, H/4, W/4] in [0, 1]."""
    z_lr: Tensor
    z_hr: Tensor

    def to(self, device: torch.device) -> Example:
        """The same on another device."""
        return Example(self.lr.to(device), self.z_lr.to(device), self.z_hr.to(device))


def _start(head: SNRHead, path: Path) -> None:
    """Fill the head from the SR stage's; one of another width is left alone, and this one starts anew."""
    width = len(load_file(path)["conv_in.weight"]) if path.exists() else head.params.hidden
    if width == head.params.hidden:
        load_export(head, path)
    else:
        log.info("snr_head: %s is %d wide; one of %d starts anew", path, width, head.params.hidden)


class SNRHeadStage(Stage):
    """log rho from z_L; see `allosr2_core.snr.head_loss`.

    Starts from the run's SR stage: its encoder and its head, if that is as wide.
    """

    name: ClassVar[str] = "snr_head"
    seed_name: ClassVar[str] = "head"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.optim = config, config.stages.snr_head.optim
        torch.manual_seed(derive_seed(config.run.seed, self.seed_name))
        source = stage_folder(Path(config.run.dir), "sr")
        self.autoencoder = trainable_autoencoder(config)
        load_export(self.autoencoder.network.encoder, source / "encoder.safetensors")
        self.autoencoder.requires_grad_(False)
        head = build_snr_head(config)
        _start(head, source / "snr_head.safetensors")
        self.trained = nn.ModuleDict({"snr_head": head})
        self.to(memory_format=torch.channels_last)
        self.validation = [
            Example(degraded, *self._latents(hr, degraded))
            for number, hr in enumerate(self._references())
            for strength in STRENGTHS
            for degraded in [degrade(hr, strength, torch.Generator().manual_seed(number), SCALE)]
        ]

    def dataset(self, start: int) -> PhotoCrops:
        length, head = self.optim.steps * self.optim.batch, self.config.stages.snr_head
        return training_crops(
            self.config,
            self.seed_name,
            start,
            length,
            degraded=True,
            crop=head.crop,
            zoom=head.zoom,
            flat_share=head.flat_share,
        )

    def _references(self) -> list[Tensor]:
        """Validation photographs at full and at half size: detail of cameras, and of pictures made smaller."""
        squares = validation_crops(self.config, VALIDATION_SIDE)
        larger = [
            hr for hr in validation_crops(self.config, 2 * VALIDATION_SIDE) if min(hr.shape[2:]) > VALIDATION_SIDE
        ]
        return squares + [F.avg_pool2d(hr, 2) for hr in larger]

    @property
    def weights(self) -> dict[str, float]:
        return {"snr_head": 1.0, "snr_map": 1.0}

    def forward(self, batch: dict[str, Tensor], step: int, random: BatchRandom) -> dict[str, Tensor]:
        z_lr, z_hr = self._latents(batch["hr"], batch["lr"])
        return head_loss(self.trained["snr_head"].log_power(z_lr), z_lr, z_hr)

    @torch.no_grad()
    def preview(self) -> Preview:
        """How far off log rho and the time are over the validation photographs at every strength.

        Pictures: the input, its local time, and that as guessed.
        """
        head, examples = self.trained["snr_head"], [example.to(self.device) for example in self.validation]
        paired_N = torch.cat([paired_rho(example.z_lr, example.z_hr) for example in examples]).log()
        guessed_N = torch.cat([head(example.z_lr) for example in examples])
        off_N = (self._time(guessed_N) - self._time(paired_N)).abs()
        figures = {
            "correlation": float(torch.corrcoef(torch.stack([guessed_N, paired_N]))[0, 1]),
            "bias": float((guessed_N - paired_N).mean()),
            "rmse": float((guessed_N - paired_N).square().mean().sqrt()),
            "t_median": float(off_N.median()),
            "t_mean": float(off_N.mean()),
        }
        return Preview(figures, [self._row(example) for example in examples[1 :: len(STRENGTHS)]])

    def _row(self, example: Example) -> list[Tensor]:
        size = tuple(SCALE * side for side in example.lr.shape[-2:])
        maps = [
            F.interpolate(t_from_rho(rho), size=size).expand(-1, 3, -1, -1)
            for rho in (paired_map(example.z_lr, example.z_hr), self.trained["snr_head"].local_map(example.z_lr))
        ]
        return [bicubic_up(example.lr, SCALE), *maps]

    def _time(self, log_rho_N: Tensor) -> Tensor:
        stage = self.config.stages.sr
        return t_from_rho(log_rho_N.exp()).clamp(stage.t_min, stage.t_max)

    @torch.no_grad()
    def _latents(self, hr: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """(z_L by the tuned encoder, z_H by the original one) of pictures in [0, 1]."""
        with self.autoencoder.original() as original:
            z_hr = original.encode(hr.mul(2).sub(1).to(memory_format=torch.channels_last))
        return self.autoencoder.network.encode(bicubic_up(lr, SCALE).mul(2).sub(1)).float(), z_hr.float()
