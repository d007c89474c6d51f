"""Stage 3: the SR flow: one network learns the one step, a straight path (FATC) and to stay on the prior (ATM).

Every pair starts at its own t*, measured from its latents; the SNR head learns to guess that time from z_L alone.
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
from .data import PhotoCrops, bicubic_up, mix_seed
from .degradation import degrade
from .loop import Stage
from .metrics.lattice import lattice
from .photos import load_split
from .preview import psnr, strip, validation_crops
from .prior import flow_matching_error
from .prior import load_trained as load_prior
from .trunks import load_efficientnet_lite0, load_st_lpips

SCALE = 4
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
        self.prior = load_prior(config).to(memory_format=torch.channels_last)
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
        self.paths = load_split(Path(config.data.root), "train")
        self.validation = [
            (hr, degrade(hr, "real", torch.Generator().manual_seed(i), SCALE))
            for i, hr in enumerate(validation_crops(config, VALIDATION_SIDE))
        ]

    def dataset(self, start: int) -> Dataset:
        data, length = self.config.data, self.optim.steps * self.optim.batch
        seed = mix_seed(self.config.run.seed, self.name)
        return PhotoCrops(self.paths, Path(data.cache), data.crop, seed, data.strengths, start, length, SCALE)

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
            {"params": list(self.trained["snr_head"].parameters()), "lr_scale": 1.0},
        ]

    def forward(self, batch: dict[str, Tensor], step: int, rng: torch.Generator) -> dict[str, Tensor]:
        stage, velocity = self.stage, self.trained["velocity"]
        hr = batch["hr"].mul(2).sub(1)
        with torch.no_grad():
            z_hr = self.autoencoder.encode(hr).float()
        z_lr = self.trained["encoder"](bicubic_up(batch["lr"], SCALE).mul(2).sub(1)).float()

        batch_size = hr.shape[0]
        rho_B = paired_rho(z_lr.detach(), z_hr)
        jitter_B = torch.exp(stage.t_jitter * torch.randn(batch_size, generator=rng)).to(rho_B)
        t_B = (t_from_rho(rho_B) * jitter_B).clamp(stage.t_min, stage.t_max)

        z_hat = one_step(velocity, start_state(z_lr, t_B, stage.init), t_B).float()
        decoder = self.trained["decoder"]
        pixels = decoder(z_hat).float()
        terms = reconstruction(pixels, hr, z_hat, z_hr) | lattice_excess(pixels, hr, self.config.codec.patch)
        terms |= repeat_excess(pixels, hr, self.config.codec.patch)
        if self.trunks and step >= stage.perceptual_from:
            offset = torch.rand(2, generator=rng) * MAX_SHIFT
            terms |= perceptual(pixels, hr, self.trunks[step % len(self.trunks)], offset)

        n = max(1, round(stage.share * batch_size))
        z, t = z_hr[:n], t_B[:n]
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
        t_mean, t_std = t_B.mean(), t_B.std()
        return terms | {"t_mean": t_mean, "t_std": t_std}

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
            t = t_from_rho(averaged["snr_head"](z_lr).exp()).clamp(self.stage.t_min, self.stage.t_max)
            start = start_state(z_lr, t, self.stage.init)
            z_hat = one_step(velocity, start, t)
            ours = decoder(z_hat).mul(0.5).add(0.5).clamp(0, 1)
            four = decoder(euler(velocity, start, t, 4)).mul(0.5).add(0.5).clamp(0, 1)
            figures = {
                "psnr": psnr(ours, hr),
                "psnr_bicubic": psnr(up, hr),
                "psnr_4steps": psnr(four, hr),
                "psnr_decode": psnr(decoder(z_hr).mul(0.5).add(0.5).clamp(0, 1), hr),
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
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + value / len(self.validation)
            rows.append([up, ours, hr])
        strip(rows, folder / f"{step:06d}.png")
        latents = [self.autoencoder.encode(hr.mul(2).sub(1)) for hr, _ in self.validation]
        return sums | {"drift": flow_matching_error(velocity, latents)}
