"""Stage 3: the SR flow: one network learns the one step, a straight path (FATC) and to stay on the prior (ATM).

Every pair has its own t*, measured from its latents; the SNR head learns to guess that time from z_L alone, and most
pairs start at the guess, as they will at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import check_init, euler, interpolate, one_step, start_state, t_from_rho
from allosr2_core.losses.atm import fake_flow, match
from allosr2_core.losses.fatc import anchor, curvature, fatc
from allosr2_core.losses.grain import grain_excess
from allosr2_core.losses.lattice import checker_excess, checker_share, lattice_excess, repeat_excess
from allosr2_core.losses.perceptual import perceptual
from allosr2_core.losses.reconstruction import charbonnier, reconstruction
from allosr2_core.snr import head_loss, log_rho, paired_rho

from ..config import Config
from ..data.crops import bicubic_up, decode_cached, mix_seed, random_window, sharpened, training_crops
from ..data.degradation import SCALE, degrade
from ..data.sources.photos import load_split
from ..loop.preview import Preview, busiest_crop, centre_crop, psnr, to_picture
from ..loop.rng import Draws
from ..loop.stage import Stage
from ..metrics.lattice import LATTICE_PERIODS, lattice, repeat
from ..models.build import build_snr_head
from ..models.trainable import flux_of, tuned_networks
from ..perceptual.distances import load_distance
from .prior import flow_matching_error

MAX_SHIFT = 4.0
"""Random shift of both pictures before the feature networks, px: one lattice period of the patch decoder."""
GRIDS = (1, 2, 4)
"""Periods of the `lattice` term, in patches of the decoder: its own grid, and those of the U-Net's levels."""
VALIDATION_SIDE = 256


@dataclass(frozen=True)
class Restored:
    """A validation pair after the one step. Pictures are [1, 3, H, W] in [0, 1]."""

    picture: Tensor
    """From the guessed time, as at inference."""
    four_steps: Tensor
    """The same in four Euler steps."""
    paired: Tensor
    """One step from the pair's own time."""
    decoded: Tensor
    """The photograph's own latent, decoded."""
    z_hr: Tensor
    t_error: float
    """Guessed time against the pair's own."""
    curvature: float


def validation_pairs(config: Config) -> dict[str, tuple[Tensor, Tensor]]:
    """Validation photograph -> (crop [1, 3, H, W], its version degraded at `real` [1, 3, H/4, W/4]), in [0, 1].

    Every other photograph by its busiest part: centres are mostly smooth; dots show on fur and grass.
    """
    paths = load_split(Path(config.data.root), "val")
    shown = [(path, centre_crop) for path in paths[::2]] + [(path, busiest_crop) for path in paths[1::2]]
    pairs = {}
    for number, (path, crop) in enumerate(shown):
        hr = crop(decode_cached(path, Path(config.data.cache)), VALIDATION_SIDE)
        pairs[path.name] = (hr, degrade(hr, "real", torch.Generator().manual_seed(number), SCALE))
    return pairs


class AlloSR2Stage(Stage):
    """The whole method; see allosr2_core.losses for the terms and the configuration for their weights."""

    name: ClassVar[str] = "allosr2"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.stage, self.optim = config, config.allosr2, config.allosr2.optim
        check_init(self.stage.init)
        if self.stage.start_noise and self.stage.init != "raw":
            raise AlloSR2Error(f"start_noise: expected init 'raw'; got {self.stage.init!r}")
        torch.manual_seed(mix_seed(config.run.seed, self.name))
        self.velocity, self.codec = tuned_networks(config, self.name)
        codec = self.codec.network
        for part in (flux_of(self.velocity.network), codec.encoder, codec.decoder):
            if hasattr(part, "gradient_checkpointing"):
                part.gradient_checkpointing = config.adapter.checkpointing
        self.codec.network.decoder.requires_grad_(self.stage.decoder_lr > 0)
        self.period = codec.downscale  # of the grid that a decoder may paint
        self.grids = [self.period * coarser for coarser in GRIDS if 4 * self.period * coarser <= config.data.crop]
        self.trained = nn.ModuleDict(
            {
                "velocity": self.velocity.network,
                "encoder": self.codec.network.encoder,
                "snr_head": build_snr_head(config),
            }
        )
        if self.stage.decoder_lr:
            self.trained["decoder"] = self.codec.network.decoder
        data_root = Path(config.data.root).parent
        distances = {name: load_distance(name, data_root) for name in dict.fromkeys(self.stage.trunks)}
        self.trunks = nn.ModuleList(distances[name] for name in self.stage.trunks)  # a name may have several turns
        self.to(memory_format=torch.channels_last)
        self.validation = list(validation_pairs(config).values())

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
            "checker",
            "grain",
            "decode",
        )
        weights = {name: float(getattr(self.stage, name)) for name in names}
        return weights | {"snr_map": weights["snr_head"]}

    def parameter_groups(self) -> list[dict[str, Any]]:
        stage = self.stage
        rates = {"velocity": 1.0, "encoder": stage.encoder_lr, "decoder": stage.decoder_lr, "snr_head": stage.head_lr}
        trained = {name: [p for p in part.parameters() if p.requires_grad] for name, part in self.trained.items()}
        return [{"params": trained[name], "lr_scale": rate} for name, rate in rates.items() if trained.get(name)]

    def forward(self, batch: dict[str, Tensor], step: int, draws: Draws) -> dict[str, Tensor]:
        stage, velocity = self.stage, self.trained["velocity"]
        hr = batch["hr"].mul(2).sub(1).to(memory_format=torch.channels_last)
        with torch.no_grad():
            z_hr = self.encode_hr(hr)
            target = sharpened(hr, stage.sharpen)
            z_target = self.encode_hr(target) if stage.sharpen else z_hr  # where the SR flow ends
        z_lr = self.encode_lr(batch["lr"])

        own_B = t_from_rho(paired_rho(z_lr.detach(), z_hr)).clamp(stage.t_min, stage.t_max)
        log_power = self.trained["snr_head"].log_power(z_lr.detach())
        guess_B = self._guess(log_rho(log_power))
        t_B = self._start_times(own_B, guess_B, draws)

        z_from = self._noised(z_lr, t_B, draws)
        z_hat = one_step(velocity, start_state(z_from, t_B, stage.init), t_B).float()
        pixels = self.codec.network.decode(z_hat).float()
        terms = reconstruction(pixels, target, z_hat, z_target)
        if stage.lattice:
            terms |= lattice_excess(pixels, target, self.grids)
        if stage.repeat:
            terms |= repeat_excess(pixels, target, self.period)
        if stage.checker:
            terms |= checker_excess(pixels, target)
        if stage.grain:
            terms |= grain_excess(pixels, target)
        if self.trunks and step >= stage.perceptual_from:
            offset = draws.common(2) * MAX_SHIFT
            view, view_hr = random_window(pixels, target, stage.perceptual_crop, draws.generator)
            terms |= perceptual(view, view_hr, self.trunks[step % len(self.trunks)], offset)

        # The terms that need more evaluations of the network see part of the batch, spread over it, so that every
        # process has its share, and take turns: straightness and the anchor, then matching.
        few, straightening = slice(None, None, stage.paths_every), step % 2 == 0
        z, t = z_hr[few], (t_B if stage.t_fixed else own_B)[few]  # the path is straight only from the pair's own time
        if stage.decode and stage.decoder_lr:
            decoded = self.codec.network.decode(z).float()
            terms["decode"] = charbonnier(decoded, hr[few])  # the decoder still inverts the encoder
        if stage.fatc and straightening:
            s = t * (1.0 - draws.rand(t.shape[0]).to(t))
            terms |= fatc(velocity, z_target[few], z_from[few], t, s, stage.init)
        if stage.anchor and straightening:
            times = torch.sigmoid(draws.randn(t.shape[0])).to(t)
            terms |= anchor(velocity, z, draws.noise_like(z), times)
        if stage.atm_fake and not straightening:
            times, noise = self._atm_draw(z, draws)
            terms |= fake_flow(velocity, z_hat[few], noise, times)
        if stage.atm_match and not straightening and step >= stage.atm_from:
            times, noise = self._atm_draw(z, draws)
            terms |= match(z_hat[few], noise, times, fake=lambda z_t, u: velocity(z_t, -u), real=self.prior)
        terms |= head_loss(log_power, z_lr, z_hr)
        return terms | {"t_mean": t_B.mean(), "t_std": t_B.std(correction=0), "t_error": (guess_B - own_B).abs().mean()}

    def encode_hr(self, pixels: Tensor) -> Tensor:
        """Latents of high-resolution pixels in [-1, 1], by the encoder as it was; for use without gradients."""
        with self.codec.original() as codec:
            return codec.encode(pixels).float()

    def encode_lr(self, lr: Tensor) -> Tensor:
        """z_L of low-resolution pictures in [0, 1], by the encoder as it is trained."""
        return self.codec.network.encode(bicubic_up(lr, SCALE).mul(2).sub(1)).float()

    def prior(self, z_t: Tensor, t: Tensor) -> Tensor:
        """The untouched prior's velocity; for use without gradients."""
        with self.velocity.original() as network:
            return network(z_t, t)

    @torch.no_grad()
    def _guess(self, log_rho_B: Tensor) -> Tensor:
        """The time of the head's guess, within the trained range: what inference starts from."""
        if self.stage.t_fixed:
            return torch.full_like(log_rho_B, self.stage.t_fixed)
        return t_from_rho(log_rho_B.exp()).clamp(self.stage.t_min, self.stage.t_max)

    def _start_times(self, own_B: Tensor, guess_B: Tensor, draws: Draws) -> Tensor:
        """Where each pair's one step starts: at the head's guess or its own t*, jittered.

        A pair's own t* knows how much detail the photograph has, which z_L alone does not tell. A network that has only
        seen such times reads the detail off t and is lost at inference, where it gets guesses.
        """
        if self.stage.t_fixed:
            return guess_B
        guessed_B = draws.rand(own_B.shape[0]).to(own_B) < self.stage.t_guessed
        jitter_B = torch.exp(self.stage.t_jitter * draws.randn(own_B.shape[0]).to(own_B))
        return (torch.where(guessed_B, guess_B, own_B) * jitter_B).clamp(self.stage.t_min, self.stage.t_max)

    def _noised(self, z_lr: Tensor, t_B: Tensor, draws: Draws) -> Tensor:
        """z_L, or the noised state of it that a sampler would start from."""
        return interpolate(z_lr, draws.noise_like(z_lr), t_B) if self.stage.start_noise else z_lr

    def _atm_draw(self, z: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        low, high = self.stage.atm_t
        return (low + (high - low) * draws.rand(z.shape[0])).to(z), draws.noise_like(z)

    @torch.no_grad()
    def restore(self, hr: Tensor, lr: Tensor, number: int) -> Restored:
        """A validation pair [1, 3, H, W], [1, 3, H/4, W/4] in [0, 1] as inference would see it, and what it shows.

        `number` seeds the noise, where a step starts from some.
        """
        stage, velocity, decode = self.stage, self.trained["velocity"], self.codec.network.decode
        z_hr, z_lr = self.encode_hr(hr.mul(2).sub(1)), self.encode_lr(lr)
        t = self._guess(self.trained["snr_head"](z_lr))
        own = t_from_rho(paired_rho(z_lr, z_hr)).clamp(stage.t_min, stage.t_max)
        t_paired = t if stage.t_fixed else own
        z_lr = self._noised(z_lr, t, Draws.seeded(number))
        start = start_state(z_lr, t, stage.init)
        exact = one_step(velocity, start_state(z_lr, t_paired, stage.init), t_paired)
        return Restored(
            picture=to_picture(decode(one_step(velocity, start, t))),
            four_steps=to_picture(decode(euler(velocity, start, t, 4))),
            paired=to_picture(decode(exact)),
            decoded=to_picture(decode(z_hr)),
            z_hr=z_hr,
            t_error=float((t - own).abs()),
            curvature=float(curvature(velocity, z_hr, z_lr, t_paired, 0.5 * t_paired, stage.init)),
        )

    def blocks_to_shard(self) -> Sequence[nn.Module]:
        """The blocks of a transformer with branches, if the configuration asks for it."""
        network = self.velocity.network
        if not self.config.adapter.shard:
            return ()
        flux = flux_of(network)
        if flux is None or not self.velocity.branched:
            raise AlloSR2Error("adapter.shard: expected branches (a rank above 0) on a network of type 'flux'")
        return [*flux.double_blocks, *flux.single_blocks]

    @torch.no_grad()
    def preview(self) -> Preview:
        rows, sums, latents = [], dict[str, float](), []
        smallest = min(min(hr.shape[-2:]) for hr, _ in self.validation)
        periods = [period for period in LATTICE_PERIODS if smallest > 4 * period]
        for number, pair in enumerate(self.validation):
            hr, lr = (picture.to(self.device) for picture in pair)
            up, result = bicubic_up(lr, SCALE), self.restore(hr, lr, number)
            figures = {
                "psnr": psnr(result.picture, hr),
                "psnr_paired": psnr(result.paired, hr),
                "psnr_bicubic": psnr(up, hr),
                "psnr_4steps": psnr(result.four_steps, hr),
                "psnr_decode": psnr(result.decoded, hr),
                "repeat4": float(repeat(result.picture, 4)),
                "repeat4_hr": float(repeat(hr, 4)),
                "checker": float(checker_share(result.picture)),
                "checker_hr": float(checker_share(hr)),
                "grain": float(grain_excess(result.picture.mul(2).sub(1), hr.mul(2).sub(1))["grain"]),
                "t_error": result.t_error,
                "curvature": result.curvature,
            }
            for period in periods:
                figures[f"lattice{period}"] = float(lattice(result.picture, period))
                figures[f"lattice{period}_hr"] = float(lattice(hr, period))
            for name, trunk in dict(zip(self.stage.trunks, self.trunks, strict=True)).items():
                figures[name] = float(trunk(result.picture, hr).mean())
                figures[f"{name}_bicubic"] = float(trunk(up, hr).mean())
                figures[f"{name}_paired"] = float(trunk(result.paired, hr).mean())
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + value / len(self.validation)
            rows.append([up, result.picture, hr])
            latents.append(result.z_hr)
        drift = flow_matching_error(self.trained["velocity"], latents)
        return Preview(sums | {"drift": drift}, rows)
