"""A training configuration: frozen dataclasses, with a range beside every number. `config_file` reads them.

The settings of the stages are in `config_stages`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from allosr2_core.errors import AlloSR2Error
from allosr2_core.ranges import Choices

from .config_limits import Count, CountOrNone, NotNegative, Positive, Share, Side, check_order
from .config_stages import StagesConfig


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives and how it is kept alive."""

    dir: str
    """Run folder; each stage writes into its own subfolder."""
    seed: int
    """Seeds data, degradations, noise and initial weights; everything is a pure function of (seed, step)."""
    threads: CountOrNone
    """CPU threads of the training process, 0 = torch's default."""
    precision: Annotated[str, Choices(("no", "bf16", "fp16", "auto"))]
    """"no", "bf16" or "fp16": accelerate's mixed precision; "auto" is bf16 where the processor has it, else fp32."""
    save_minutes: NotNegative
    """Resumable state is written this often, and at the end. 0: after every step."""
    log_every: Count
    """Steps between lines of log.jsonl, each of which tells the means since the line before."""
    preview_every: CountOrNone
    """Steps between preview strips; one more at the start and at the end. 0: none."""
    tensorboard: bool
    """Whether figures go to TensorBoard too, in the stage's folder (needs the package tensorboard)."""


@dataclass(frozen=True)
class SourceConfig:
    """A folder to train on."""

    hr: str
    """High-resolution photographs."""
    lr: str
    """Folder with a low-resolution version of each, of the same name, a quarter of its size; "" = made on the fly."""
    weight: Positive
    """How often its photographs are drawn, relative to the other folders."""


@dataclass(frozen=True)
class DataConfig:
    """The photographs."""

    root: str
    """Folder with train/ and val/, as `python -m train photos` makes it."""
    cache: str
    """Decoded photographs are kept here as arrays, so that a restart costs nothing."""
    crop: Side
    """Side of a high-resolution training crop, px; a multiple of 16."""
    workers: CountOrNone
    """Processes that prepare crops ahead of the step, each on one thread and at a lower priority, so that they run
    while the training process leaves a core idle; 0 = in the training process, between two steps. 1 keeps up with the
    small networks on two cores; a GPU needs several."""
    zoom: tuple[Positive, Positive]
    """Range of the size that crops are seen at, relative to the photograph's own (`data.PhotoCrops`)."""
    strengths: tuple[NotNegative, NotNegative, NotNegative]
    """Share of mild, real and severe degradations."""
    extended: bool
    """Whether degradations also draw motion blur, WebP and other chroma subsampling (see `train.degradation`)."""
    grey: Share
    """Share of crops that are made grey, their inputs too, so that what has no colour is given none."""
    sources: tuple[SourceConfig, ...]
    """What is trained on; empty = the train/ folder of `root`. Validation is always on its val/ folder."""

    def __post_init__(self) -> None:
        check_order("zoom", self.zoom)
        if not sum(self.strengths):
            raise AlloSR2Error(f"strengths: expected a share above 0 among them; got {list(self.strengths)}")


@dataclass(frozen=True)
class BaseConfig:
    """Files of a pre-trained base in Black Forest Labs' names. "" everywhere: the run trains its own."""

    transformer: str
    """The flow transformer, safetensors; `network` must describe it."""
    autoencoder: str
    """Its autoencoder, safetensors; `autoencoder` must describe it."""
    null: str
    """Text-free conditioning, safetensors with "context" [1, T, width] and "pooled" [1, width]; "" = one zero token."""
    dtype: Annotated[str, Choices(("fp32", "bf16"))]
    """"fp32" or "bf16": precision of the transformer's frozen weights."""


@dataclass(frozen=True)
class AdapterConfig:
    """How the SR stage changes the prior and the encoder."""

    rank: CountOrNone
    """Rank of the low-rank branches; 0 = a whole copy of each network is trained instead."""
    alpha: NotNegative
    """Branches are scaled by alpha / rank. Above 0 for a rank above 0."""
    transformer: tuple[str, ...]
    """Layers of the transformer with a branch: regular expressions for whole names. Ignored for rank 0, as the next."""
    encoder: tuple[str, ...]
    """Likewise for the autoencoder's encoder."""
    checkpointing: bool
    """Whether transformer and KL autoencoder keep only their blocks' inputs and compute the rest again."""
    shard: bool
    """Whether a run of several processes spreads the transformer's frozen blocks over them (`train.sharding`)."""

    def __post_init__(self) -> None:
        if self.rank and not self.alpha:
            raise AlloSR2Error(f"alpha: expected above 0 for a rank of {self.rank}; got {self.alpha:g}")


@dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder: a `type` of allosr2_core.networks.autoencoders, and its own `params`."""

    type: str
    params: dict[str, Any]


@dataclass(frozen=True)
class NetworkConfig:
    """The velocity network: a `type` of allosr2_core.networks.registry, and its own `params`."""

    type: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Config:
    """A whole configuration file."""

    run: RunConfig
    data: DataConfig
    base: BaseConfig
    adapter: AdapterConfig
    autoencoder: AutoencoderConfig
    network: NetworkConfig
    stages: StagesConfig

    def __post_init__(self) -> None:
        stages, base = self.stages, self.base
        from_base = {"autoencoder": base.autoencoder, "prior": base.transformer}
        for name in ("autoencoder", "prior", "sr", "snr_head"):
            if not getattr(stages, name).optim.steps and not from_base.get(name):
                raise AlloSR2Error(f"stages.{name}.optim.steps: expected at least 1; got 0")
