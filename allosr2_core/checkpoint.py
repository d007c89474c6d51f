"""The checkpoint file: one safetensors file, versioned, strict.

Tensors, by prefix (names behind `lora.transformer.` and `lora.vae_encoder.` are ones the host's LoRA loader accepts):

    flow.*               the generative prior (embedded and standalone files only)
    vae.*                the autoencoder (likewise)
    lora.transformer.*   what the SR flow adds to the prior: `diffusion_model.X.diff`, `diffusion_model.X.diff_b`
    lora.vae_encoder.*   what it adds to the encoder: `encoder.X.diff`, `encoder.X.diff_b`
    snr_head.*           the head that predicts log rho

Header metadata: `allosr2.format`, `allosr2.config` and `allosr2.training` (JSON), `modelspec.*` 1.0.1, `license`.
Loading refuses anything it does not fully understand and says what was expected and what came.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import AlloSR2Error
from .flow import INITS, Init
from .networks import build_network, strict
from .patch_autoencoder import PatchAutoencoder, PatchAutoencoderParams
from .snr import SNRHead, SNRHeadParams
from .weight_diff import apply_diff, diff_names, export_diff, listed

FORMAT = 1
FORMAT_KEY, CONFIG_KEY, TRAINING_KEY = "allosr2.format", "allosr2.config", "allosr2.training"
FLOW, VAE, LORA_FLOW, LORA_ENCODER, HEAD = "flow.", "vae.", "lora.transformer.", "lora.vae_encoder.", "snr_head."
GROUPS = (FLOW, VAE, LORA_FLOW, LORA_ENCODER, HEAD)
HOST_FLOW, HOST_ENCODER = "diffusion_model.", "encoder."
"""What the host puts before the names of the velocity network's and the encoder's parameters."""

M = TypeVar("M", bound=nn.Module)

EMBEDDED_NAME = "allosr2-mini (embedded)"
T_METHODS = ("calibrated", "predicted")


def embedded_path() -> Path:
    """The checkpoint that comes with the package."""
    return Path(__file__).parent / "weights" / "allosr2-mini.safetensors"


@dataclass(frozen=True)
class AlloSR2Config:
    """Everything a pipeline must know about a checkpoint besides its weights. No field has a default."""

    base: str
    """Base family, e.g. "allosr2-mini"."""
    network: Mapping[str, Any]
    """Velocity network: type and parameters, see `networks.build_network`."""
    autoencoder: Mapping[str, Any]
    """Parameters of the patch autoencoder."""
    snr_head: Mapping[str, Any]
    """Parameters of the SNR head."""
    init: Init
    """Starting point it was trained with: "aligned" or "raw"."""
    t_star: float
    """The calibrated global t*."""
    t_min: float
    t_max: float
    """Range of t* it was trained on."""
    t_method: str
    """What to use when the user does not choose: "calibrated" or "predicted"."""
    scale: int
    """Enlargement it was trained for."""
    trained_size: int
    """Side of a training crop, px."""
    tile_size: int
    """Side of a tile when the user does not choose, px."""
    latent_channels: int
    latent_downscale: int
    """Pixels per latent cell."""
    latent_scale: float
    latent_shift: float
    """scaled latent = (raw - shift) * scale."""

    def __post_init__(self) -> None:
        problems = []
        if self.init not in INITS:
            problems.append(f"init must be one of {INITS}, got {self.init!r}")
        if self.t_method not in T_METHODS:
            problems.append(f"t_method must be one of {T_METHODS}, got {self.t_method!r}")
        for name in ("scale", "trained_size", "tile_size", "latent_channels", "latent_downscale"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                problems.append(f"{name} must be a positive integer, got {value!r}")
        for name in ("t_star", "t_min", "t_max", "latent_scale", "latent_shift"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                problems.append(f"{name} must be a finite number, got {value!r}")
        if not problems and not self.latent_scale > 0:
            problems.append(f"latent_scale must be positive, got {self.latent_scale!r}")
        problems += self._contradictions()
        if not problems and not 0 < self.t_min <= self.t_star <= self.t_max < 1:
            problems.append(f"expected 0 < t_min <= t_star <= t_max < 1, got {self.t_min}, {self.t_star}, {self.t_max}")
        if problems:
            raise AlloSR2Error("checkpoint config: " + "; ".join(problems))

    def _contradictions(self) -> list[str]:
        """Facts that the architectures state as well, and state otherwise."""
        parts = {"network": self.network, "autoencoder": self.autoencoder, "snr_head": self.snr_head}
        found = [
            f"latent_channels is {self.latent_channels!r} here and {part['latent_channels']!r} in {name}"
            for name, part in parts.items()
            if part.get("latent_channels", self.latent_channels) != self.latent_channels
        ]
        if self.autoencoder.get("patch", self.latent_downscale) != self.latent_downscale:
            patch = self.autoencoder["patch"]
            found.append(f"latent_downscale is {self.latent_downscale!r} here and patch {patch!r} in autoencoder")
        return found

    def clamp_t(self, t: Tensor) -> Tensor:
        """t limited to the trained range."""
        return t.clamp(self.t_min, self.t_max)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: configuration, how it was trained, and its tensors (fp32, CPU) by full name."""

    config: AlloSR2Config
    training: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors behind one prefix, without it. Empty if the file has none."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    def build_prior(self) -> nn.Module:
        """The generative prior, frozen."""
        return _filled(build_network(self.config.network), self.group(FLOW))

    def build_network(self, strength: float = 1.0) -> nn.Module:
        """The SR velocity network: the prior plus `strength` times the adapter."""
        network = self.build_prior()
        apply_diff(network, self.group(LORA_FLOW), HOST_FLOW, strength)
        return network

    def build_autoencoder(self, strength: float = 1.0) -> PatchAutoencoder:
        """The autoencoder with `strength` times the adapter on its encoder. Strength 0 encodes HR pictures exactly."""
        model = PatchAutoencoder(strict(PatchAutoencoderParams, self.config.autoencoder, "autoencoder"))
        _filled(model, self.group(VAE))
        apply_diff(model.encoder, self.group(LORA_ENCODER), HOST_ENCODER, strength)
        return model

    def build_snr_head(self) -> SNRHead:
        """The SNR head, frozen."""
        return _filled(SNRHead(strict(SNRHeadParams, self.config.snr_head, "snr_head")), self.group(HEAD))


def _filled(module: M, tensors: dict[str, Tensor]) -> M:
    module.load_state_dict(tensors)
    return module.eval().requires_grad_(False)


def expected_tensors(config: AlloSR2Config) -> dict[str, torch.Size]:
    """Name and shape of every tensor a file with this configuration must have; nothing is allocated."""
    with torch.device("meta"):
        network = build_network(config.network)
        autoencoder = PatchAutoencoder(strict(PatchAutoencoderParams, config.autoencoder, "autoencoder"))
        head = SNRHead(strict(SNRHeadParams, config.snr_head, "snr_head"))
    expected = {FLOW + k: v.shape for k, v in network.state_dict().items()}
    expected |= {VAE + k: v.shape for k, v in autoencoder.state_dict().items()}
    expected |= {HEAD + k: v.shape for k, v in head.state_dict().items()}
    expected |= {LORA_FLOW + k: v for k, v in _diff_shapes(network, HOST_FLOW).items()}
    return expected | {LORA_ENCODER + k: v for k, v in _diff_shapes(autoencoder.encoder, HOST_ENCODER).items()}


def _diff_shapes(module: nn.Module, prefix: str) -> dict[str, torch.Size]:
    parameters = dict(module.named_parameters())
    return {key: parameters[name].shape for key, name in diff_names(module, prefix).items()}


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and verify a checkpoint. AlloSR2Error names the file, what was expected and what was found."""
    path = Path(path)
    where = path.name
    if not path.is_file():
        raise AlloSR2Error(f"{where}: expected a checkpoint file at {path.parent}; there is none")
    if path.stat().st_size == 0:
        raise AlloSR2Error(f"{where}: expected a safetensors file; this file is empty")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            config, training = _parse_metadata(metadata, where)
            try:
                expected = expected_tensors(config)
            except AlloSR2Error as error:
                raise AlloSR2Error(f"{where}: config: {error}") from error
            _check_names(expected, {k: file.get_slice(k) for k in file.keys()}, where)  # noqa: SIM118
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise AlloSR2Error(f"{where}: expected a complete safetensors file; {error}") from error
    _check_finite(tensors, where)
    return Checkpoint(config=config, training=training, tensors=tensors)


def _parse_metadata(metadata: Mapping[str, str], where: str) -> tuple[AlloSR2Config, dict[str, Any]]:
    version = metadata.get(FORMAT_KEY)
    if version is None:
        raise AlloSR2Error(
            f"{where}: expected an AlloSR2 checkpoint ({FORMAT_KEY} in its metadata); this is another file"
        )
    if version != str(FORMAT):
        raise AlloSR2Error(f"{where}: expected {FORMAT_KEY} {FORMAT}; got {version!r}, a newer pack may read it")
    try:
        config = json.loads(metadata[CONFIG_KEY])
        training = json.loads(metadata.get(TRAINING_KEY, "{}"))
    except (KeyError, json.JSONDecodeError) as error:
        raise AlloSR2Error(f"{where}: expected JSON under {CONFIG_KEY} and {TRAINING_KEY}; {error!r}") from error
    if not isinstance(config, dict) or not isinstance(training, dict):
        raise AlloSR2Error(f"{where}: expected JSON objects under {CONFIG_KEY} and {TRAINING_KEY}")
    return strict(AlloSR2Config, config, f"{where}: config"), training


def _check_names(expected: Mapping[str, torch.Size], found: Mapping[str, Any], where: str) -> None:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        raise AlloSR2Error(f"{where}: tensors missing: {listed(missing)}; not expected: {listed(extra)}")
    for name, piece in found.items():
        shape, dtype = tuple(piece.get_shape()), piece.get_dtype()
        if shape != tuple(expected[name]):
            raise AlloSR2Error(f"{where}: {name}: expected shape {tuple(expected[name])}; got {shape}")
        if dtype not in ("F16", "BF16", "F32"):
            raise AlloSR2Error(f"{where}: {name}: expected F16, BF16 or F32; got {dtype}")


def _check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    broken = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise AlloSR2Error(f"{where}: expected finite weights; NaN or infinite values in {listed(broken)}")


def save_checkpoint(
    path: str | os.PathLike[str],
    config: AlloSR2Config,
    training: Mapping[str, Any],
    *,
    prior: nn.Module,
    network: nn.Module,
    autoencoder: PatchAutoencoder,
    encoder: nn.Module,
    snr_head: SNRHead,
    dtype: torch.dtype = torch.float16,
    title: str = "AlloSR2 mini",
    license: str = "Apache-2.0",
) -> None:
    """Write a checkpoint atomically (temporary file, fsync, rename).

    `network` and `encoder` are the tuned versions of `prior` and `autoencoder.encoder`; their differences are stored,
    taken from the base weights as *stored*, so that rounding to `dtype` is not counted twice. Raises AlloSR2Error, and
    leaves an older file as it was, when a module does not fit the configuration or has values not finite in `dtype`.
    """
    base_flow, base_vae = _rounded(prior, dtype), _rounded(autoencoder, dtype)
    tensors = {FLOW + k: v for k, v in base_flow.state_dict().items()}
    tensors |= {VAE + k: v for k, v in base_vae.state_dict().items()}
    tensors |= {LORA_FLOW + k: v for k, v in export_diff(base_flow, network, HOST_FLOW).items()}
    tensors |= {LORA_ENCODER + k: v for k, v in export_diff(base_vae.encoder, encoder, HOST_ENCODER).items()}
    tensors |= {HEAD + k: v for k, v in snr_head.state_dict().items()}
    stored = {k: v.detach().to("cpu", dtype).contiguous() for k, v in tensors.items()}
    _check_names(expected_tensors(config), {k: _Piece(v) for k, v in stored.items()}, Path(path).name)
    _check_finite(stored, f"{Path(path).name} (in {dtype})")
    metadata = {
        FORMAT_KEY: str(FORMAT),
        CONFIG_KEY: json.dumps(dataclasses.asdict(config), sort_keys=True),
        TRAINING_KEY: json.dumps(dict(training), sort_keys=True),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": config.base,
        "modelspec.implementation": "allosr2",
        "modelspec.title": title,
        "modelspec.license": license,
        "license": license,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(stored, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors writes for the owner alone
        with temporary.open("r+b") as file:  # Windows syncs only what is open for writing
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Piece:
    """A tensor with the two questions `_check_names` asks of a file's slice."""

    tensor: Tensor

    def get_shape(self) -> list[int]:
        return list(self.tensor.shape)

    def get_dtype(self) -> str:
        return {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}.get(self.tensor.dtype, "other")


def _rounded(module: M, dtype: torch.dtype) -> M:
    """A copy whose weights took the way through `dtype`."""
    rounded = copy.deepcopy(module)
    rounded.load_state_dict({k: v.to(dtype).to(v.dtype) for k, v in module.state_dict().items()})
    return rounded.requires_grad_(False)
