"""Training configuration: TOML files with strict keys, read into frozen dataclasses.

Every field must be present in the file; an unknown or missing key is an error that names it and the nearest known key.
Keys that older files lack have a neutral value (`former_names.ADDED`).
A number has its range beside it, and one outside is refused where the file is read.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from allosr2_core.dataclass_reader import read_dataclass
from allosr2_core.errors import AlloSR2Error
from allosr2_core.ranges import Choices, Range

from . import former_names

D = TypeVar("D")

Count = Annotated[int, Range(1)]
CountOrNone = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Time = Annotated[float, Range(0, 1, above=True)]
"""Of the flow, between data (0) and noise (1)."""
Side = Annotated[int, Range(16, multiple=16)]
"""Of a crop, px."""


def _check_order(name: str, values: tuple[float, float]) -> None:
    """AlloSR2Error where a range ends below its start."""
    if values[0] > values[1]:
        raise AlloSR2Error(f"{name}: expected the smaller number first; got {list(values)}")


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
        _check_order("zoom", self.zoom)
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
    """"" = none; "unet" on pixels, or small heads on the features of a frozen network, "lite0" or "vgg"."""
    channels: Count
    """Width of the U-Net where it is finest, or of the heads."""
    lr: Positive
    """Its peak learning rate; it rises and falls with the stage's."""
    crop: CountOrNone
    """Side of the random square of each crop that it sees, px; 0 = all of it. For the U-Net a multiple of 8."""
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
        _check_order("atm_t", self.atm_t)
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
        _check_order("zoom", self.zoom)


@dataclass(frozen=True)
class StagesConfig:
    """What each stage of `train.stages` is told."""

    autoencoder: AutoencoderStageConfig
    prior: PriorStageConfig
    sr: SRStageConfig
    snr_head: SNRHeadStageConfig


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


EXTENDS = "extends"
"""Names the file beside it that a configuration differs from."""


def load_config(path: Path) -> Config:
    """Read a TOML file, and the one it `extends`, from which only what differs is stated.

    AlloSR2Error on a missing file, a syntax error, or an unknown, missing or ill-typed key of the merged tables.
    """
    return from_table(Config, _merged_table(path, ()), where=path.name)


def _merged_table(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The file's table over that of the file it extends; `above` are the files that extend this one."""
    if path.resolve() in above:
        raise AlloSR2Error(f"{path.name}: expected to extend another file; it extends itself, directly or by others")
    table = _read_table(path)
    base = table.pop(EXTENDS, None)
    if base is None:
        return table
    if not isinstance(base, str) or not base:
        raise AlloSR2Error(f"{path.name}.{EXTENDS}: expected the name of a file; got {base!r}")
    return _over(_merged_table(path.parent / base, (*above, path.resolve())), table)


def _over(base: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """`table` over `base`, key by key and table by table; one of another `type` has nothing of the base's."""
    merged = dict(base)
    for key, value in table.items():
        old = base.get(key)
        same = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) == old.get("type")
        )
        merged[key] = _over(old, value) if same and isinstance(old, dict) else value
    return merged


def _read_table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AlloSR2Error(f"expected a configuration file at {path}; there is none") from None
    except OSError as error:
        raise AlloSR2Error(f"expected a configuration file at {path}; {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AlloSR2Error(f"expected TOML in {path}; {error}") from error


def from_table(kind: type[D], table: dict[str, Any], where: str) -> D:
    """Build a (nested) dataclass from a mapping, strictly; a key of an older configuration is told its new name, and
    what an older configuration lacks is what it was then.
    """
    if kind is Config:
        table = former_names.completed(table)
    return read_dataclass(kind, table, where, _say_what_it_is_called)


def _say_what_it_is_called(where: str, key: str) -> None:
    """AlloSR2Error for a key of an older configuration."""
    path = f"{where.partition('.toml')[2]}.{key}".strip(".")
    if path in former_names.KEYS:
        raise AlloSR2Error(f"{where}: {key!r} is called {former_names.KEYS[path]}")
    if path in former_names.GONE:
        raise AlloSR2Error(f"{where}: {key!r} is no setting; leave it out")
