"""Stage 3: the SR flow: one network learns the one step, a straight path (FATC) and to stay on the prior (ATM).

Every pair has its own t*, measured from its latents; the SNR head learns to predict that time from z_L alone, and most
pairs start at the prediction, as they will at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import Dataset

from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import check_init, euler, one_step, start_state, t_from_rho
from allosr2_core.losses.fatc import curvature
from allosr2_core.losses.registry import LOSSES, SRStep, in_order
from allosr2_core.snr import log_rho, paired_rho

from ..config import Config
from ..data.crops import bicubic_up, derive_seed, sharpened, training_crops
from ..data.degradation import SCALE
from ..loop.preview import Preview, to_picture
from ..loop.rng import BatchRandom
from ..loop.stage import Stage
from ..loop.state import hold, is_trained
from ..models.build import build_snr_head, latent_channels
from ..models.discriminator import Prior
from ..models.trainable import trainable_networks
from ..perceptual.distances import load_distances
from .prior import flow_matching_error
from .sr_adversary import SRAdversary
from .sr_validation import (
    KEPT,
    Pair,
    Restored,
    constant_figures,
    features_of,
    grid_periods,
    moved,
    validation_figures,
    validation_pairs,
)

GRIDS = (1, 2, 4)
"""Periods of the `lattice` loss, in patches of the decoder: its own grid, and those of the U-Net's levels."""


class SRStage(Stage):
    """The whole method; see allosr2_core.losses for the terms and the configuration for their weights."""

    name: ClassVar[str] = "sr"
    seed_name: ClassVar[str] = "allosr2"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.stage, self.optim = config, config.stages.sr, config.stages.sr.optim
        check_init(self.stage.init)
        torch.manual_seed(derive_seed(config.run.seed, self.seed_name))
        self.velocity, self.autoencoder = trainable_networks(config)
        autoencoder = self.autoencoder.network
        for network in (self.velocity.network, autoencoder):
            network.set_gradient_checkpointing(config.adapter.checkpointing)
        autoencoder.decoder.requires_grad_(self.stage.decoder_lr > 0)
        self.period = autoencoder.downscale  # of the grid that a decoder may paint
        self.grids = [self.period * coarser for coarser in GRIDS if 4 * self.period * coarser <= config.data.crop]
        self.trained = nn.ModuleDict(
            {
                "velocity": self.velocity.network,
                "encoder": autoencoder.encoder,
                "snr_head": build_snr_head(config),
            }
        )
        if self.stage.decoder_lr:
            self.trained["decoder"] = autoencoder.decoder
        self.rates = {
            "velocity": 1.0,
            "encoder": self.stage.encoder_lr,
            "decoder": self.stage.decoder_lr,
            "snr_head": self.stage.head_lr,
        }
        for name, rate in self.rates.items():
            if not rate and name in self.trained:
                hold(self.trained[name])
        data_root = Path(config.data.root).parent
        self.by_name = load_distances(self.stage.perceptual, data_root)
        self.distances = nn.ModuleList(self.by_name[name] for name in self.stage.perceptual)  # some have several turns
        self.losses = in_order([name for name in LOSSES if self.stage.weight(name)])
        adversary = self.stage.adversary
        self.starts = {
            "perceptual": self.stage.perceptual_from,
            "atm_match": self.stage.atm_from,
            "adversarial": adversary.start,
        }
        if adversary.network:
            seed = derive_seed(config.run.seed, self.seed_name, "adversary")
            self.adversary = SRAdversary(adversary, data_root, self._critic, seed)
        self.to(memory_format=torch.channels_last)
        self.validation = list(validation_pairs(config).values())
        self.grid_periods = grid_periods(self.validation)
        self._pairs: list[Pair] = []

    def dataset(self, start: int) -> Dataset:
        return training_crops(self.config, self.seed_name, start, self.optim.steps * self.optim.batch, degraded=True)

    @property
    def weights(self) -> dict[str, float]:
        return {**self.stage.weights, "snr_map": self.stage.weight("snr_head"), "discriminator": 1.0}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One for each part, also where its rate is 0: a state goes on when a rate is changed."""
        trained = {name: [p for p in part.parameters() if is_trained(p)] for name, part in self.trained.items()}
        return [{"params": trained[name], "lr_scale": rate} for name, rate in self.rates.items() if trained.get(name)]

    def forward(self, batch: dict[str, Tensor], step: int, random: BatchRandom) -> dict[str, Tensor]:
        stage, velocity = self.stage, self.trained["velocity"]
        hr = batch["hr"].mul(2).sub(1).to(memory_format=torch.channels_last)
        with torch.no_grad():
            z_hr = self.encode_hr(hr)
            target = sharpened(hr, stage.sharpen, stage.sharpen_sigma, stage.sharpen_threshold)
            z_target = self.encode_hr(target) if stage.sharpen else z_hr  # where the SR flow ends
        z_lr = self.encode_lr(batch["lr"])

        t_paired_B = self.paired_time(z_lr.detach(), z_hr)
        log_power = self.trained["snr_head"].log_power(z_lr.detach())
        t_predicted_B = self.predicted_time(log_rho(log_power))
        t_B = self.start_times(t_paired_B, t_predicted_B, random)

        z_from = self.start_latent(z_lr, t_B, random)
        start = start_state(z_from, t_B, stage.init)
        z_hat = one_step(velocity, start, t_B).float()
        pixels = self.autoencoder.network.decode(z_hat).float()
        shown = None
        if self.adversary is not None:
            shown = self.adversary.show((pixels, hr), (z_hat, z_hr), random)
        terms = self._losses(
            step,
            SRStep(
                pixels=pixels,
                target=target,
                hr=hr,
                z_hat=z_hat,
                z_target=z_target,
                z_hr=z_hr,
                z_lr=z_from,
                log_power=log_power,
                t_paired_B=t_paired_B,
                init=stage.init,
                velocity=velocity,
                prior=self.prior,
                decode=self.autoencoder.network.decode,
                averaged=lambda: self._averaged(start, t_B),
                scores=shown.scores if shown is not None else None,
                distance=self.distances[step % len(self.distances)] if self.distances else None,
                perceptual_crop=stage.perceptual_crop,
                period=self.period,
                grids=self.grids,
                atm_t=stage.atm_t,
                random=random,
            ),
        )
        if shown is not None:
            terms |= shown.terms()
        if "perceptual" in terms:  # the log tells the networks apart, whose distances are of other sizes
            network = stage.perceptual[step % len(stage.perceptual)]
            terms[f"perceptual_{network}"] = terms["perceptual"].detach()
        t_error = (t_predicted_B - t_paired_B).abs().mean()
        return terms | {"t_mean": t_B.mean(), "t_std": t_B.std(correction=0), "t_error": t_error}

    def _losses(self, number: int, step: SRStep) -> dict[str, Tensor]:
        """The losses that have a weight, and their turn, in a step."""
        terms, few = dict[str, Tensor](), step.thinned(self.stage.paths_every)
        for name in self.losses:
            loss = LOSSES[name]
            if loss.turn in (None, number % 2) and number >= self.starts.get(name, 0):
                terms |= loss.terms(few if loss.thinned else step)
        return terms

    def encode_hr(self, pixels: Tensor) -> Tensor:
        """Latents of high-resolution pixels in [-1, 1], by the encoder as it was; for use without gradients."""
        with self.autoencoder.original() as original:
            return original.encode(pixels).float()

    def encode_lr(self, lr: Tensor) -> Tensor:
        """z_L of low-resolution pictures in [0, 1], by the encoder as it is trained."""
        return self.autoencoder.network.encode(bicubic_up(lr, SCALE).mul(2).sub(1)).float()

    def _critic(self) -> Prior:
        """The prior as a discriminator sees through it."""
        return Prior(self.velocity.frozen(), latent_channels(self.config), self.stage.atm_t)

    def prior(self, z_t: Tensor, t: Tensor) -> Tensor:
        """The untouched prior's velocity; for use without gradients."""
        with self.velocity.original() as network:
            return network(z_t, t)

    @torch.no_grad()
    def _averaged(self, start: Tensor, t_B: Tensor) -> Tensor:
        """The one step of the averaged velocity network, decoded."""
        network, weights = self.trained["velocity"], self.averages.of("velocity")
        z_hat = one_step(lambda z_t, t: functional_call(network, weights, (z_t, t)), start, t_B)
        return self.autoencoder.network.decode(z_hat.float()).float()

    def paired_time(self, z_lr: Tensor, z_hr: Tensor) -> Tensor:
        """Each pair's own t*, [B]."""
        return self._within_range(t_from_rho(paired_rho(z_lr, z_hr)))

    @torch.no_grad()
    def predicted_time(self, log_rho_B: Tensor) -> Tensor:
        """The time the head predicts, [B]: what inference starts from."""
        return self._within_range(t_from_rho(log_rho_B.float().exp()))

    def start_times(self, t_paired_B: Tensor, t_predicted_B: Tensor, random: BatchRandom) -> Tensor:
        """Where each pair's one step starts: at the head's prediction or its own t*, jittered.

        A pair's own t* knows how much detail the photograph has, which z_L alone does not tell. A network that has only
        seen such times reads the detail off t and is lost at inference, where it gets predictions.
        """
        predicted_B = random.rand(t_paired_B.shape[0]).to(t_paired_B) < self.stage.t_guessed
        jitter_B = torch.exp(self.stage.t_jitter * random.randn(t_paired_B.shape[0]).to(t_paired_B))
        return self._within_range(torch.where(predicted_B, t_predicted_B, t_paired_B) * jitter_B)

    def start_latent(self, z_lr: Tensor, t_B: Tensor, random: BatchRandom) -> Tensor:
        """What a step from z_L starts at: z_L itself."""
        return z_lr

    def _within_range(self, t_B: Tensor) -> Tensor:
        return t_B.clamp(self.stage.t_min, self.stage.t_max)

    @torch.no_grad()
    def restore(self, pair: Pair, number: int) -> Restored:
        """A validation pair as inference would see it, and what it shows.

        `number` seeds the noise, where a step starts from some.
        """
        init, decode = self.stage.init, self.autoencoder.network.decode
        z_hr, z_lr = pair.z_hr, self.encode_lr(pair.lr)
        t, t_paired = self.predicted_time(self.trained["snr_head"](z_lr)), self.paired_time(z_lr, z_hr)
        z_lr = self.start_latent(z_lr, t, BatchRandom.seeded(number))
        start = start_state(z_lr, t, init)
        exact = one_step(self._velocity, start_state(z_lr, t_paired, init), t_paired)
        return Restored(
            picture=to_picture(decode(one_step(self._velocity, start, t))),
            four_steps=to_picture(decode(euler(self._velocity, start, t, 4))),
            paired=to_picture(decode(exact)),
            decoded=to_picture(decode(z_hr)),
            t_error=float((t - t_paired).abs()),
            curvature=float(curvature(self._velocity, z_hr, z_lr, t_paired, 0.5 * t_paired, init)),
        )

    def _velocity(self, z_t: Tensor, t: Tensor) -> Tensor:
        """The trained velocity in fp32, of which differences are taken."""
        return self.trained["velocity"](z_t, t).float()

    @torch.no_grad()
    def pairs(self) -> list[Pair]:
        """The validation pairs with what training does not change of them, made when they are first asked for."""
        for hr, lr in self.validation[len(self._pairs) :]:
            hr, lr = hr.to(self.device), lr.to(self.device)
            up, features = bicubic_up(lr, SCALE), features_of(hr, self.by_name)
            figures = constant_figures(up, hr, features, self.by_name, self.grid_periods)
            kept = moved(features, torch.device("cpu")) if len(self._pairs) < KEPT else {}
            self._pairs.append(Pair(hr, lr, up, self.encode_hr(hr.mul(2).sub(1)), kept, figures))
        return self._pairs

    def blocks_to_shard(self) -> Sequence[nn.Module]:
        """The blocks of a transformer with branches, if the configuration asks for it."""
        if not self.config.adapter.shard:
            return ()
        blocks = self.velocity.network.blocks
        if not blocks or not self.velocity.branched:
            raise AlloSR2Error("adapter.shard: expected branches (a rank above 0) on a network of type 'flux'")
        return blocks

    @torch.no_grad()
    def preview(self) -> Preview:
        rows, sums, pairs = [], dict[str, float](), self.pairs()
        for number, pair in enumerate(pairs):
            result = self.restore(pair, number)
            for name, value in validation_figures(pair, result, self.by_name, self.grid_periods).items():
                sums[name] = sums.get(name, 0.0) + value / len(pairs)
            rows.append([pair.up, result.picture, pair.hr])
        drift = flow_matching_error(self.trained["velocity"], [pair.z_hr for pair in pairs])
        return Preview(sums | {"drift": drift}, rows)
