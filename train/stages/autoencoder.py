"""Stage 1: the patch autoencoder. Its linear basis is computed, its residual branches are trained."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from allosr2_core.errors import AlloSR2Error
from allosr2_core.losses.perceptual import perceptual
from allosr2_core.losses.reconstruction import charbonnier
from allosr2_core.networks.patch_autoencoder import PatchAutoencoder, principal_components

from ..config import Config
from ..data.crops import PhotoCrops, derive_seed, training_crops
from ..loop.preview import Preview, psnr, to_picture, validation_crops
from ..loop.rng import BatchRandom
from ..loop.stage import Stage
from ..loop.state import has_state
from ..models.build import build_autoencoder
from ..perceptual.networks import load_st_lpips


def linear_basis(model: PatchAutoencoder, dataset: PhotoCrops, patches: int, seed: int) -> None:
    """Principal components of 4 x 4 patches of the training crops, written into the model. Crops supply them evenly."""
    per_crop = 512
    rng = torch.Generator().manual_seed(derive_seed(seed, "basis"))
    chunks = []
    for i in range(-(-patches // per_crop)):
        x = dataset[i]["hr"][None].mul(2).sub(1)
        cells_NP = F.pixel_unshuffle(x, model.params.patch)[0].flatten(1).T
        chunks.append(cells_NP[torch.randperm(cells_NP.shape[0], generator=rng)[:per_crop]])
    model.set_basis(*principal_components(torch.cat(chunks), model.params.latent_channels))


class AutoencoderStage(Stage):
    """Reconstruction on clean latents, reconstruction and features on noised ones."""

    name: ClassVar[str] = "autoencoder"
    seed_name: ClassVar[str] = "autoencoder"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.optim = config, config.stages.autoencoder.optim
        torch.manual_seed(derive_seed(config.run.seed, self.seed_name))
        model = build_autoencoder(config)
        if config.base.autoencoder or not isinstance(model, PatchAutoencoder):
            raise AlloSR2Error(
                f"expected an autoencoder of type 'patch' to train and no base; got {config.autoencoder.type!r}"
            )
        if not has_state(Path(config.run.dir) / self.name):
            linear_basis(model, self.dataset(0), config.stages.autoencoder.pca_patches, config.run.seed)
        self.trained = nn.ModuleDict({"autoencoder": model})
        self.distance = load_st_lpips("alex", Path(config.data.root).parent)
        self.validation = validation_crops(config, 512)

    def dataset(self, start: int) -> PhotoCrops:
        return training_crops(self.config, self.seed_name, start, self.optim.steps * self.optim.batch, degraded=False)

    @property
    def weights(self) -> dict[str, float]:
        return {"clean": 1.0, "clean_mse": 10.0, "noised": 0.5, "perceptual": self.config.stages.autoencoder.perceptual}

    def forward(self, batch: dict[str, Tensor], step: int, random: BatchRandom) -> dict[str, Tensor]:
        model = self.trained["autoencoder"]
        x = batch["hr"].mul(2).sub(1)
        z = model.encode(x)
        x_half, z_half = x[::2], z[::2]
        sigma_B = random.rand(z_half.shape[0]).to(z) * self.config.stages.autoencoder.latent_noise
        noise = random.noise_like(z_half) * sigma_B[:, None, None, None]
        clean = model.decode(z).float()
        noised = model.decode(z_half + noise).float()
        terms = {
            "clean": charbonnier(clean, x),
            "clean_mse": (clean - x).square().mean(),
            "noised": charbonnier(noised, x_half),
        }
        return terms | perceptual(noised, x_half, self.distance, random.common(2) * 4)

    @torch.no_grad()
    def preview(self) -> Preview:
        model, rows, clean, noisy = self.trained["autoencoder"], [], [], []
        rng = torch.Generator().manual_seed(0)
        for hr in self.validation:
            hr = hr.to(self.device)
            z = model.encode(hr.mul(2).sub(1))
            z_noisy = z + self.config.stages.autoencoder.latent_noise * torch.randn(z.shape, generator=rng).to(z)
            pictures = [to_picture(model.decode(latent)) for latent in (z, z_noisy)]
            clean.append(psnr(pictures[0], hr))
            noisy.append(psnr(pictures[1], hr))
            rows.append([*pictures, hr])
        figures = {"psnr": sum(clean) / len(clean), "psnr_worst": min(clean), "psnr_noised": sum(noisy) / len(noisy)}
        return Preview(figures, rows[:6])
