"""The settings of each stage of training, and of its optimisation: `[stages.*]` of a configuration file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Annotated

from allosr2_core.errors import AlloSR2Error
from allosr2_core.ranges import Choices, Range

from .config_limits import Count, CountOrNone, NotNegative, Positive, Share, Side, Time, check_order


@dataclass(frozen=True)
class OptimConfig:
    """One stage's optimisation: warm-up, constant, then a linear decay to zero over the last part."""

    optimizer: Annotated[str, Choices(("adamw", "muon"))]
    """"adamw" or "muon" (train.optimizers)."""
    steps: CountOrNone
    """0: the stage is not run, for its network comes from the files of a base."""
    batch: Count
    """Samples of a step, over all processes."""
    micro: CountOrNone
    """Samples a process sees at once, 0 = its whole share of the batch; gradients add up to the same step."""
    lr: NotNegative
    """Peak learning rate, above 0 for a stage that is run."""
    warmup: CountOrNone
    """Steps of linear warm-up, at most `steps`."""
    decay: CountOrNone
    """Steps of linear decay to zero at the end, at most `steps`."""
    ema: Annotated[float, Range(0, 1, below=True)]
    """Decay of the averaged weights that are exported."""
    grad_clip: Positive
    """Largest gradient norm."""

    def __post_init__(self) -> None:
        for name, value in (("warmup", self.warmup), ("decay", self.decay)):
            if value > self.steps:
                raise AlloSR2Error(f"{name}: expected at most the {self.steps} steps of the stage; got {value}")
        if self.steps and not self.lr:
            raise AlloSR2Error(f"lr: expected above 0; got {self.lr:g}")


@dataclass(frozen=True)
class AutoencoderStageConfig:
    """Stage 1: residual branches around the linear basis."""

    optim: OptimConfig
    pca_patches: CountOrNone
    """Patches the principal components are computed from; above 0 for a stage that is run."""
    latent_noise: NotNegative
    """Half of each batch is decoded from latents with noise of a standard deviation up to this, so that the decoder
    answers small errors of the flow with a natural picture."""
    perceptual: NotNegative
    """Weight of the feature loss on the noised half."""

    def __post_init__(self) -> None:
        if self.optim.steps and not self.pca_patches:
            raise AlloSR2Error("pca_patches: expected at least 1; got 0")


@dataclass(frozen=True)
class PriorStageConfig:
    """Stage 2: flow matching on high-resolution latents."""

    optim: OptimConfig
    t_logit_mean: float
    """Times are drawn as sigmoid(N(mean, std))."""
    t_logit_std: NotNegative


@dataclass(frozen=True)
class AdversaryConfig:
    """A discriminator against the SR stage (train.models.discriminator), which sees the photographs unsharpened.

    The stage is charged the loss `adversarial`; against the artifacts that this asks for there is the loss `ldl`.
    """

    network: str
    """"" = none; "unet" on pixels, or small heads on the features of a frozen network: "lite0" or "vgg" on pixels,
    "prior" on latents that are noised to times in `atm_t`."""
    channels: Count
    """Width of the U-Net where it is finest, or of the heads."""
    lr: Positive
    """Its peak learning rate; it rises and falls with the stage's."""
    crop: CountOrNone
    """Side of the random square of each crop that it sees, px; 0 = all of it. For the U-Net a multiple of 8. The
    prior sees the latents of as large a square."""
    start: CountOrNone
    """Step at which the loss `adversarial` starts; until then the discriminator learns, and the stage without it."""


@dataclass(frozen=True)
class SRStageConfig:
    """Stage 3: the SR flow on top of the prior. Weights multiply the terms of allosr2_core.losses by name."""

    optim: OptimConfig
    init: str
    """"aligned" or "raw"."""
    t_min: Time
    t_max: Time
    """Each pair's own t* is clamped to [t_min, t_max]."""
    t_jitter: NotNegative
    """Standard deviation of log-normal jitter on the time a pair starts at."""
    t_guessed: Share
    """Share of the pairs that start at the SNR head's guess instead of their own t*."""
    encoder_lr: NotNegative
    """Learning rate of the encoder's adapter, relative to `optim.lr`; 0 = it is left as it is, as the next two."""
    decoder_lr: NotNegative
    """Learning rate of the decoder, relative to `optim.lr`; it learns to mix patches the flow got wrong."""
    head_lr: NotNegative
    """Learning rate of the SNR head, relative to `optim.lr`."""
    sharpen: NotNegative
    """How much the photographs' detail is raised where it is not faint, in what results are compared with
    (`data.sharpened`); 0 = not."""
    sharpen_sigma: Positive
    """Standard deviation of the blur that detail is what stands out from, px. 2 raises what is fine; 8, as
    Real-ESRGAN has it, the contrast of edges and shapes, too."""
    sharpen_threshold: NotNegative
    """Detail that is left alone, in levels of 255: noise in skies and shadows."""
    perceptual: tuple[str, ...]
    """Distances of the perceptual loss (train.perceptual.distances); they take turns step by step."""
    perceptual_from: CountOrNone
    """Step at which the perceptual term starts."""
    perceptual_crop: CountOrNone
    """Side of the random square of each crop that the feature networks see, px; 0 = all of it. They are most of
    the cost of a step."""
    atm_from: CountOrNone
    """Step at which atm_match starts; atm_fake is trained from the beginning."""
    atm_t: tuple[Time, Time]
    """Range of the times at which the two scores are compared."""
    paths_every: Count
    """FATC, the anchor, ATM and `decode` see every n-th sample of a batch; the one-step terms see all of them. FATC
    and the anchor are on in even steps, ATM's terms in odd ones."""
    adversary: AdversaryConfig
    weights: dict[str, NotNegative]
    """Loss of allosr2_core.losses -> weight; 0 where it is not named."""

    def __post_init__(self) -> None:
        from allosr2_core.losses.registry import LOSSES  # here, so that commands without it need no torch

        if self.t_min > self.t_max:
            raise AlloSR2Error(f"t_min: expected at most t_max, {self.t_max:g}; got {self.t_min:g}")
        check_order("atm_t", self.atm_t)
        for name in self.weights:
            if name not in LOSSES:
                near = difflib.get_close_matches(name, LOSSES, n=1) or sorted(LOSSES)
                raise AlloSR2Error(f"weights: expected losses like {', '.join(near)}; got {name!r}")
        if self.weight("perceptual") and not self.perceptual:
            raise AlloSR2Error("perceptual: expected a distance where its weight is above 0; got none")
        if self.weight("decode") and not self.decoder_lr:
            raise AlloSR2Error("weights.decode: expected 0 where decoder_lr is 0")
        if self.weight("adversarial") and not self.adversary.network:
            raise AlloSR2Error("adversary.network: expected one where the weight of adversarial is above 0")

    def weight(self, loss: str) -> float:
        """The weight of a loss, 0 where none is given."""
        return self.weights.get(loss, 0.0)


@dataclass(frozen=True)
class SNRHeadStageConfig:
    """Stage 4: the SNR head alone, on the finished encoder."""

    optim: OptimConfig
    hidden: Count
    """Width of the head, in the SR stage as in this one."""
    crop: Side
    """Side of its high-resolution crops, px; larger than the SR stage's, nearer to whole pictures."""
    zoom: tuple[Positive, Positive]
    """Range of the size that its crops are seen at (`data.PhotoCrops`); above 1 they are soft, as backgrounds are."""
    flat_share: Share
    """Chance that a crop with nearly no detail is kept; the SR stage draws most of them again. More of them, and larger
    sizes, lower the guess where z_L does not tell."""

    def __post_init__(self) -> None:
        check_order("zoom", self.zoom)


@dataclass(frozen=True)
class StagesConfig:
    """What each stage of `train.stages` is told."""

    autoencoder: AutoencoderStageConfig
    prior: PriorStageConfig
    sr: SRStageConfig
    snr_head: SNRHeadStageConfig
