"""Training configuration: TOML files with strict keys, read into frozen dataclasses.

Every field must be present in the file; an unknown or missing key is an error that names it and the nearest known key.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from allosr2_core.errors import AlloSR2Error

D = TypeVar("D")


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives and how it is kept alive."""

    dir: str
    """Run folder; each stage writes into its own subfolder."""
    seed: int
    """Seeds data, degradations, noise and initial weights; everything is a pure function of (seed, step)."""
    threads: int
    """CPU threads of the training process, 0 = torch's default."""
    precision: str
    """"no", "bf16" or "fp16": accelerate's mixed precision; "auto" is bf16 where the processor has it, else fp32."""
    save_minutes: float
    """Resumable state is written this often, and at the end."""
    log_every: int
    """Steps between lines of log.jsonl."""
    preview_every: int
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
    weight: float
    """How often its photographs are drawn, relative to the other folders."""


@dataclass(frozen=True)
class DataConfig:
    """The photographs."""

    root: str
    """Folder with train/ and val/, as `python -m train photos` makes it."""
    cache: str
    """Decoded photographs are kept here as arrays, so that a restart costs nothing."""
    crop: int
    """Side of a high-resolution training crop, px; a multiple of 16."""
    workers: int
    """Data-loading processes, 0 = in the training process."""
    zoom: tuple[float, float]
    """Range of the size that crops are seen at, relative to the photograph's own (`data.PhotoCrops`)."""
    strengths: tuple[float, float, float]
    """Share of mild, real and severe degradations."""
    extended: bool
    """Whether degradations also draw motion blur, WebP and other chroma subsampling (see `train.degradation`)."""
    sources: tuple[SourceConfig, ...]
    """What is trained on; empty = the train/ folder of `root`. Validation is always on its val/ folder."""


@dataclass(frozen=True)
class BaseConfig:
    """Files of a pre-trained base in Black Forest Labs' names. "" everywhere: the run trains its own."""

    transformer: str
    """The flow transformer, safetensors; `network` must describe it."""
    autoencoder: str
    """Its autoencoder, safetensors; `codec` must describe it."""
    null: str
    """Text-free conditioning, safetensors with "context" [1, T, width] and "pooled" [1, width]; "" = one zero token."""
    dtype: str
    """"fp32" or "bf16": precision of the transformer's frozen weights."""


@dataclass(frozen=True)
class AdapterConfig:
    """How the SR stage changes the prior and the encoder."""

    rank: int
    """Rank of the low-rank branches; 0 = a whole copy of each network is trained instead."""
    alpha: float
    """Branches are scaled by alpha / rank."""
    transformer: tuple[str, ...]
    """Layers of the transformer with a branch: regular expressions for whole names. Ignored for rank 0, as the next."""
    encoder: tuple[str, ...]
    """Likewise for the autoencoder's encoder."""
    checkpointing: bool
    """Whether transformer and KL autoencoder keep only their blocks' inputs and compute the rest again."""
    shard: bool
    """Whether a run of several processes spreads the transformer's frozen blocks over them (`train.sharding`)."""


@dataclass(frozen=True)
class CodecConfig:
    """The autoencoder. `type` is "patch" (allosr2_core.patch_autoencoder) or "kl" (allosr2_core.autoencoder)."""

    type: str
    params: dict[str, Any]


@dataclass(frozen=True)
class NetworkConfig:
    """The velocity network. `type` is "unet" or "flux"; `params` are that class's own."""

    type: str
    params: dict[str, Any]


@dataclass(frozen=True)
class OptimConfig:
    """One stage's optimisation: warm-up, constant, then a linear decay to zero over the last part."""

    optimizer: str
    """"adamw" or "muon" (train.optimizers)."""
    steps: int
    batch: int
    """Samples of a step, over all processes."""
    micro: int
    """Samples a process sees at once, 0 = its whole share of the batch; gradients add up to the same step."""
    lr: float
    """Peak learning rate."""
    warmup: int
    """Steps of linear warm-up."""
    decay: int
    """Steps of linear decay to zero at the end."""
    ema: float
    """Decay of the averaged weights that are exported."""
    grad_clip: float
    """Largest gradient norm."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Stage 1: residual branches around the linear basis."""

    optim: OptimConfig
    pca_patches: int
    """Patches the principal components are computed from."""
    latent_noise: float
    """Half of each batch is decoded from latents with noise of a standard deviation up to this, so that the decoder
    answers small errors of the flow with a natural picture."""
    perceptual: float
    """Weight of the feature loss on the noised half."""


@dataclass(frozen=True)
class PriorConfig:
    """Stage 2: flow matching on high-resolution latents."""

    optim: OptimConfig
    t_logit_mean: float
    """Times are drawn as sigmoid(N(mean, std))."""
    t_logit_std: float


@dataclass(frozen=True)
class AlloSR2StageConfig:
    """Stage 3: the SR flow on top of the prior. Weights multiply the terms of allosr2_core.losses by name."""

    optim: OptimConfig
    init: str
    """"aligned" or "raw"."""
    t_min: float
    t_max: float
    """Each pair's own t* is clamped to [t_min, t_max]."""
    t_jitter: float
    """Standard deviation of log-normal jitter on the time a pair starts at."""
    t_guessed: float
    """Share of the pairs that start at the SNR head's guess instead of their own t*."""
    t_fixed: float
    """One start time for every picture, instead of each its own; 0 = each its own."""
    start_noise: bool
    """Whether steps start from (1 - t) z_L + t e with Gaussian noise e, as samplers do, instead of from z_L; needs
    init "raw", whose path leads from whatever state one starts at."""
    encoder_lr: float
    """Learning rate of the encoder's adapter, relative to `optim.lr`."""
    decoder_lr: float
    """Learning rate of the decoder, relative to `optim.lr`, 0 = frozen; it learns to mix patches the flow got wrong."""
    head_lr: float
    """Learning rate of the SNR head, relative to `optim.lr`."""
    sharpen: float
    """How much the photographs' detail is raised where it is not faint, in what results are compared with
    (`data.sharpened`); 0 = not."""
    trunks: tuple[str, ...]
    """Feature networks of the perceptual loss; they take turns step by step."""
    perceptual_from: int
    """Step at which the perceptual term starts."""
    perceptual_crop: int
    """Side of the random square of each crop that the feature networks see, px; 0 = all of it. They are most of
    the cost of a step."""
    atm_from: int
    """Step at which atm_match starts; atm_fake is trained from the beginning."""
    atm_t: tuple[float, float]
    """Range of the times at which the two scores are compared."""
    paths_every: int
    """FATC, the anchor, ATM and `decode` see every n-th sample of a batch; the one-step terms see all of them. FATC
    and the anchor are on in even steps, ATM's terms in odd ones."""
    rec_pixel: float
    rec_latent: float
    perceptual: float
    fatc: float
    anchor: float
    atm_match: float
    atm_fake: float
    snr_head: float
    lattice: float
    repeat: float
    checker: float
    grain: float
    decode: float
    """Keeps a decoder that is trained along the encoder's inverse; nothing where it is frozen."""


@dataclass(frozen=True)
class HeadConfig:
    """Stage 4: the SNR head alone, on the finished encoder."""

    optim: OptimConfig
    hidden: int
    """Width of the head, in the SR stage as in this one."""
    crop: int
    """Side of its high-resolution crops, px; larger than the SR stage's, nearer to whole pictures."""
    zoom: tuple[float, float]
    """Range of the size that its crops are seen at (`data.PhotoCrops`); above 1 they are soft, as backgrounds are."""
    flat_share: float
    """Chance that a crop with nearly no detail is kept; the SR stage draws most of them again. More of them, and larger
    sizes, lower the guess where z_L does not tell."""


@dataclass(frozen=True)
class Config:
    """A whole configuration file."""

    run: RunConfig
    data: DataConfig
    base: BaseConfig
    adapter: AdapterConfig
    codec: CodecConfig
    network: NetworkConfig
    autoencoder: AutoencoderConfig
    prior: PriorConfig
    allosr2: AlloSR2StageConfig
    head: HeadConfig


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
    """Build a (nested) dataclass from a mapping, strictly."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(names)}"
            raise AlloSR2Error(f"{where}: unknown key {key!r}{hint}")
    missing = [name for name in names if name not in table]
    if missing:
        raise AlloSR2Error(f"{where}: missing {', '.join(missing)}")
    return kind(**{name: _convert(hints[name], table[name], f"{where}.{name}") for name in names})


def _convert(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - types come from annotations
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise AlloSR2Error(f"{where}: expected a table; got {value!r}")
        return from_table(hint, value, where)  # type: ignore[arg-type]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise AlloSR2Error(f"{where}: expected a list; got {value!r}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise AlloSR2Error(f"{where}: expected {len(kinds)} values; got {value!r}")
        return tuple(_convert(k, v, where) for k, v in zip(kinds, value, strict=True))
    plain = origin if isinstance(origin, type) and not isinstance(origin, types.UnionType) else hint
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise AlloSR2Error(f"{where}: expected {plain.__name__}; got {value!r}")
    if plain is float and not math.isfinite(value):
        raise AlloSR2Error(f"{where}: expected a finite number; got {value!r}")
    return value
