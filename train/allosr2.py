"""Stage 3: the SR flow: one network learns the one step, a straight path (FATC) and to stay on the prior (ATM).

Every pair has its own t*, measured from its latents; the SNR head learns to guess that time from z_L alone, and most
pairs start at the guess, as they will at inference.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import check_init, euler, one_step, start_state, t_from_rho
from allosr2_core.losses.atm import fake_flow, match
from allosr2_core.losses.fatc import anchor, curvature, fatc
from allosr2_core.losses.lattice import lattice_excess, patch_repeat, repeat_excess
from allosr2_core.losses.perceptual import feature_distance, perceptual
from allosr2_core.losses.reconstruction import charbonnier, reconstruction
from allosr2_core.snr import SNRHead, SNRHeadParams, head_loss, paired_rho

from .autoencoder import load_trained as load_autoencoder
from .config import Config
from .data import bicubic_up, mix_seed, random_window, training_crops
from .degradation import SCALE, degrade
from .loop import Stage
from .metrics.lattice import lattice
from .preview import busiest_crop, centre_crop, psnr, strip, to_picture, validation_crops
from .prior import flow_matching_error
from .prior import load_trained as load_prior
from .trunks import load_efficientnet_lite0, load_st_lpips

HEAD_WIDTH = 48
MAX_SHIFT = 4.0
"""Random shift of both pictures before the feature networks, px: one lattice period of the patch decoder."""
VALIDATION_SIDE = 256

Distance = Callable[[Tensor, Tensor], Tensor]


class FeatureDistance(nn.Module):
    """Distance of two pictures in [0, 1] in the features of a trunk."""

    def __init__(self, trunk: Any) -> None:  # noqa: ANN401 - a FeatureTrunk
        super().__init__()
        self.trunk = trunk

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            features_y = self.trunk.features(y)
        return feature_distance(self.trunk.features(x), features_y)


def load_trunk(name: str, root: Path) -> nn.Module:
    """A frozen perceptual distance by its configured name."""
    if name == "st_lpips_alex":
        return load_st_lpips("alex", root)
    if name == "efficientnet_lite0":
        return FeatureDistance(load_efficientnet_lite0(root))
    raise AlloSR2Error(f"expected trunks of 'st_lpips_alex', 'efficientnet_lite0'; got {name!r}")


class AlloSR2Stage(Stage):
    """The whole method; see allosr2_core.losses for the terms and the configuration for their weights."""

    name: ClassVar[str] = "allosr2"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.stage, self.optim = config, config.allosr2, config.allosr2.optim
        check_init(self.stage.init)
        torch.manual_seed(mix_seed(config.run.seed, self.name))
        self.autoencoder = load_autoencoder(config)
        self.prior = load_prior(config)
        self.trained = nn.ModuleDict(
            {
                "velocity": copy.deepcopy(self.prior),
                "encoder": copy.deepcopy(self.autoencoder.encoder).requires_grad_(True),
                "decoder": copy.deepcopy(self.autoencoder.decoder).requires_grad_(True),
                "snr_head": SNRHead(SNRHeadParams(config.codec.latent_channels, HEAD_WIDTH)),
            }
        )
        self.prior.eval().requires_grad_(False)
        weights_root = Path(config.data.root).parent / "weights"
        self.trunks = nn.ModuleList(load_trunk(name, weights_root) for name in self.stage.trunks)
        self.to(memory_format=torch.channels_last)
        # Every other photograph by its busiest part: centres are mostly smooth; dots show on fur and grass.
        centre, busy = (validation_crops(config, VALIDATION_SIDE, crop) for crop in (centre_crop, busiest_crop))
        self.validation = [
            (hr, degrade(hr, "real", torch.Generator().manual_seed(i), SCALE))
            for i, hr in enumerate(centre[::2] + busy[1::2])
        ]

    def dataset(self, start: int) -> Dataset:
        return training_crops(self.config, self.name, start, self.optim.steps * self.optim.batch, degraded=True)

    @property
    def weights(self) -> dict[str, float]:
        names = (
            "rec_pixel",
            "rec_latent",
            "perceptual",
            "fatc",
            "anchor",
            "atm_match",
            "atm_fake",
            "snr_head",
            "lattice",
            "repeat",
            "decode",
        )
        weights = {name: float(getattr(self.stage, name)) for name in names}
        return weights | {"snr_map": weights["snr_head"]}

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.trained["velocity"].parameters()), "lr_scale": 1.0},
            {"params": list(self.trained["encoder"].parameters()), "lr_scale": self.stage.encoder_lr},
            {"params": list(self.trained["decoder"].parameters()), "lr_scale": self.stage.decoder_lr},
            {"params": list(self.trained["snr_head"].parameters()), "lr_scale": self.stage.head_lr},
        ]

    def forward(self, batch: dict[str, Tensor], step: int, rng: torch.Generator) -> dict[str, Tensor]:
        stage, velocity = self.stage, self.trained["velocity"]
        hr = batch["hr"].mul(2).sub(1).to(memory_format=torch.channels_last)
        with torch.no_grad():
            z_hr = self.autoencoder.encode(hr).float()
        z_lr = self.trained["encoder"](bicubic_up(batch["lr"], SCALE).mul(2).sub(1)).float()

        batch_size = hr.shape[0]
        own_B = t_from_rho(paired_rho(z_lr.detach(), z_hr)).clamp(stage.t_min, stage.t_max)
        guess_B = self._guess(self.trained["snr_head"], z_lr)
        t_B = self._start_times(own_B, guess_B, rng)

        z_hat = one_step(velocity, start_state(z_lr, t_B, stage.init), t_B).float()
        decoder = self.trained["decoder"]
        pixels = decoder(z_hat).float()
        terms = reconstruction(pixels, hr, z_hat, z_hr) | lattice_excess(pixels, hr, self.config.codec.patch)
        terms |= repeat_excess(pixels, hr, self.config.codec.patch)
        if self.trunks and step >= stage.perceptual_from:
            offset = torch.rand(2, generator=rng) * MAX_SHIFT
            view, view_hr = random_window(pixels, hr, stage.perceptual_crop, rng)
            terms |= perceptual(view, view_hr, self.trunks[step % len(self.trunks)], offset)

        n = max(1, round(stage.share * batch_size))
        z, t = z_hr[:n], own_B[:n]  # FATC's path is straight only from the pair's own time
        terms["decode"] = charbonnier(decoder(z).float(), hr[:n])  # the decoder still inverts the encoder
        if stage.fatc:
            s = t * (1.0 - torch.rand(n, generator=rng).to(t))
            terms |= fatc(velocity, z, z_lr[:n], t, s, stage.init)
        if stage.anchor:
            times = torch.sigmoid(torch.randn(n, generator=rng)).to(t)
            terms |= anchor(velocity, z, torch.randn(z.shape, generator=rng).to(z), times)
        if stage.atm_fake:
            times, noise = self._atm_draw(z, rng)
            terms |= fake_flow(velocity, z_hat[:n], noise, times)
        if stage.atm_match and step >= stage.atm_from:
            times, noise = self._atm_draw(z, rng)
            terms |= match(z_hat[:n], noise, times, fake=lambda z_t, u: velocity(z_t, -u), real=self.prior)
        terms |= head_loss(self.trained["snr_head"], z_lr, z_hr)
        return terms | {"t_mean": t_B.mean(), "t_std": t_B.std(), "t_error": (guess_B - own_B).abs().mean()}

    @torch.no_grad()
    def _guess(self, head: nn.Module, z_lr: Tensor) -> Tensor:
        """The head's t* of each latent, within the trained range: what inference starts from."""
        return t_from_rho(head(z_lr.detach()).exp()).clamp(self.stage.t_min, self.stage.t_max)

    def _start_times(self, own_B: Tensor, guess_B: Tensor, rng: torch.Generator) -> Tensor:
        """Where each pair's one step starts: at the head's guess or its own t*, jittered.

        A pair's own t* knows how much detail the photograph has, which z_L alone does not tell. A network that has only
        seen such times reads the detail off t and is lost at inference, where it gets guesses.
        """
        guessed_B = torch.rand(own_B.shape[0], generator=rng).to(own_B) < self.stage.t_guessed
        jitter_B = torch.exp(self.stage.t_jitter * torch.randn(own_B.shape[0], generator=rng)).to(own_B)
        return (torch.where(guessed_B, guess_B, own_B) * jitter_B).clamp(self.stage.t_min, self.stage.t_max)

    def _atm_draw(self, z: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        low, high = self.stage.atm_t
        times = low + (high - low) * torch.rand(z.shape[0], generator=rng)
        return times.to(z), torch.randn(z.shape, generator=rng).to(z)

    @torch.no_grad()
    def preview(self, averaged: nn.ModuleDict, folder: Path, step: int) -> dict[str, float]:
        velocity, decoder, rows, sums = averaged["velocity"], averaged["decoder"], [], dict[str, float]()
        for hr, lr in self.validation:
            up = bicubic_up(lr, SCALE)
            z_hr, z_lr = self.autoencoder.encode(hr.mul(2).sub(1)), averaged["encoder"](up.mul(2).sub(1))
            t_paired = t_from_rho(paired_rho(z_lr, z_hr)).clamp(self.stage.t_min, self.stage.t_max)
            t = self._guess(averaged["snr_head"], z_lr)
            start = start_state(z_lr, t, self.stage.init)
            z_hat = one_step(velocity, start, t)
            ours = to_picture(decoder(z_hat))
            four = to_picture(decoder(euler(velocity, start, t, 4)))
            exact = one_step(velocity, start_state(z_lr, t_paired, self.stage.init), t_paired)
            paired = to_picture(decoder(exact))
            figures = {
                "psnr": psnr(ours, hr),
                "psnr_paired": psnr(paired, hr),
                "psnr_bicubic": psnr(up, hr),
                "psnr_4steps": psnr(four, hr),
                "psnr_decode": psnr(to_picture(decoder(z_hr)), hr),
                "lattice4": float(lattice(ours, 4)),
                "lattice4_hr": float(lattice(hr, 4)),
                "repeat4": float(patch_repeat(ours, 4).abs()),
                "repeat4_hr": float(patch_repeat(hr, 4).abs()),
                "t_error": float((t - t_paired).abs()),
                "curvature": float(curvature(velocity, z_hr, z_lr, t_paired, 0.5 * t_paired, self.stage.init)),
            }
            for name, trunk in zip(self.stage.trunks, self.trunks, strict=True):
                figures[name] = float(trunk(ours, hr).mean())
                figures[f"{name}_bicubic"] = float(trunk(up, hr).mean())
                figures[f"{name}_paired"] = float(trunk(paired, hr).mean())
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + value / len(self.validation)
            rows.append([up, ours, hr])
        strip(rows, folder / f"{step:06d}.png")
        latents = [self.autoencoder.encode(hr.mul(2).sub(1)) for hr, _ in self.validation]
        return sums | {"drift": flow_matching_error(velocity, latents)}
