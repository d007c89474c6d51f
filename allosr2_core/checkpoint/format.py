"""The checkpoint file: one safetensors file, versioned, strict. It is standalone or an adapter for a base (FLUX.1).

Tensors, by prefix (names behind `lora.transformer.` and `lora.vae_encoder.` are ones the host's LoRA loader accepts):

    flow.*               the generative prior (standalone files only)
    vae.*                the autoencoder (likewise)
    lora.transformer.*   what the SR flow adds to the prior: `diffusion_model.X.diff`, `diffusion_model.X.diff_b`; in
                         adapters `diffusion_model.X.lora_A.weight`, `.lora_B.weight`, `.alpha`
    lora.vae_encoder.*   what it adds to the encoder: `encoder.X.diff` ... or `encoder.X.lora_A.weight` ...
    snr_head.*           the head that predicts log rho (adapters may come without)
    null.*               `context` (1, T, D) and `pooled` (1, V): the empty prompt of an adapter (likewise)

Header metadata: `allosr2.format`, `allosr2.config` and `allosr2.training` (JSON), `modelspec.*` 1.0.1, `license`.
Loading refuses anything it does not fully understand and says what was expected and what came.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..adapters.targets import Shape, adapter_shapes
from ..adapters.weight_diff import apply_diff, diff_names, export_diff, listed
from ..errors import AlloSR2Error
from ..files import write_atomically
from ..networks.codecs import Codec, build_codec, codec_params
from ..networks.patch_autoencoder import PatchAutoencoder
from ..networks.registry import HOST_NETWORKS, NullFlux, build_network, strict
from ..snr import SNRHead, SNRHeadParams
from .config import AlloSR2Config

FORMAT = 1
FORMAT_KEY, CONFIG_KEY, TRAINING_KEY = "allosr2.format", "allosr2.config", "allosr2.training"
FLOW, VAE, LORA_FLOW, LORA_ENCODER, HEAD = "flow.", "vae.", "lora.transformer.", "lora.vae_encoder.", "snr_head."
NULL = "null."
GROUPS = (FLOW, VAE, LORA_FLOW, LORA_ENCODER, HEAD, NULL)
HOST_FLOW, HOST_ENCODER = "diffusion_model.", "encoder."
"""What the host puts before the names of the velocity network's and the encoder's parameters."""

M = TypeVar("M", bound=nn.Module)
DTYPE_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}

EMBEDDED_NAME = "allosr2-mini (embedded)"


def embedded_path() -> Path:
    """The checkpoint that comes with the package."""
    return Path(__file__).parents[1] / "weights" / "allosr2-mini.safetensors"


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
        """The generative prior, frozen. AlloSR2Error for an adapter: its prior is the base."""
        self._check_standalone()
        return _filled(build_network(self.config.network), self.group(FLOW))

    def build_network(self, strength: float = 1.0) -> nn.Module:
        """The SR velocity network: the prior plus `strength` times what was learned. AlloSR2Error for an adapter."""
        network = self.build_prior()
        apply_diff(network, self.group(LORA_FLOW), HOST_FLOW, strength)
        return network

    def build_autoencoder(self, strength: float = 1.0) -> PatchAutoencoder:
        """The autoencoder with `strength` times what its encoder learned; strength 0 encodes HR pictures exactly.

        AlloSR2Error for an adapter.
        """
        self._check_standalone()
        model = build_codec(codec_params(self.config.autoencoder))
        assert isinstance(model, PatchAutoencoder)  # noqa: S101 - checked when it was read
        _filled(model, self.group(VAE))
        apply_diff(model.encoder, self.group(LORA_ENCODER), HOST_ENCODER, strength)
        return model

    def build_snr_head(self) -> SNRHead | None:
        """The SNR head, frozen; None in a file without."""
        if not self.config.snr_head:
            return None
        return _filled(SNRHead(strict(SNRHeadParams, self.config.snr_head, "snr_head")), self.group(HEAD))

    @property
    def null(self) -> tuple[Tensor, Tensor] | None:
        """Context (1, T, D) and pooled text (1, V) of the empty prompt it was trained with; None in a file without."""
        group = self.group(NULL)
        return (group["context"], group["pooled"]) if group else None

    def _check_standalone(self) -> None:
        if self.config.adapter:
            raise AlloSR2Error(
                f"expected a standalone checkpoint; this one is an adapter for {self.config.base}: it needs that "
                "base's transformer and VAE"
            )


def _filled(module: M, tensors: dict[str, Tensor]) -> M:
    module.load_state_dict(tensors)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions: 1.5 times as fast
    return module.eval().requires_grad_(False)


def expected_tensors(config: AlloSR2Config, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """Name and shape of every tensor a file with this configuration must have; nothing is allocated.

    found: shapes in the file. Of these only what the configuration leaves open is taken: an adapter's ranks, and
    whether it has an empty prompt, of how many tokens.
    """
    expected: dict[str, Shape] = {}
    with torch.device("meta"):
        network = None if config.only_host_network else build_network(config.network)
        codec = None if config.only_host_autoencoder else build_codec(codec_params(config.autoencoder))
        if config.snr_head:
            head = SNRHead(strict(SNRHeadParams, config.snr_head, "snr_head"))
            expected |= _shapes(head, HEAD)
    if config.adapter:
        return expected | _expected_of_adapter(config, network, codec, found)
    if network is None or not isinstance(codec, PatchAutoencoder):
        raise AlloSR2Error("expected a standalone file to have a network and a patch autoencoder of its own")
    expected |= _shapes(network, FLOW) | _shapes(codec, VAE)
    expected |= {LORA_FLOW + k: v for k, v in _diff_shapes(network, HOST_FLOW).items()}
    return expected | {LORA_ENCODER + k: v for k, v in _diff_shapes(codec.encoder, HOST_ENCODER).items()}


def _expected_of_adapter(
    config: AlloSR2Config, network: nn.Module | None, codec: Codec | None, found: Mapping[str, Shape]
) -> dict[str, Shape]:
    if not (network is None or isinstance(network, NullFlux)):
        raise AlloSR2Error(f"expected an adapter's network to be of type flux or {', '.join(HOST_NETWORKS)}")
    flux, encoder = (None if network is None else network.velocity.flux), (None if codec is None else codec.encoder)
    parts = ((flux, "transformer", LORA_FLOW + HOST_FLOW), (encoder, "vae_encoder", LORA_ENCODER + HOST_ENCODER))
    expected: dict[str, Shape] = {}
    for part, name, prefix in parts:
        expected |= adapter_shapes(part, config.adapter[name], prefix, found)
    context, pooled = found.get(NULL + "context"), found.get(NULL + "pooled")
    if context is None and pooled is None:
        return expected
    if network is None:
        return expected | {NULL + "context": context or (), NULL + "pooled": pooled or ()}
    tokens = context[1] if context and len(context) > 1 else 0
    widths = (network.null_context.shape[-1], network.null_pooled.shape[-1])
    return expected | {NULL + "context": (1, tokens, widths[0]), NULL + "pooled": (1, widths[1])}


def _shapes(module: nn.Module, prefix: str) -> dict[str, Shape]:
    return {prefix + name: tuple(value.shape) for name, value in module.state_dict().items()}


def _diff_shapes(module: nn.Module, prefix: str) -> dict[str, Shape]:
    parameters = dict(module.named_parameters())
    return {key: tuple(parameters[name].shape) for key, name in diff_names(module, prefix).items()}


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
            pieces = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            found = {name: (tuple(piece.get_shape()), piece.get_dtype()) for name, piece in pieces.items()}
            try:
                expected = expected_tensors(config, {name: shape for name, (shape, _) in found.items()})
            except AlloSR2Error as error:
                raise AlloSR2Error(f"{where}: config: {error}") from error
            _check_names(expected, found, where)
            tensors = {name: file.get_tensor(name) for name in found}
    except SafetensorError as error:
        raise AlloSR2Error(f"{where}: expected a complete safetensors file; {error}") from error
    _check_finite(tensors, where)
    if not config.adapter:  # gigabytes for a large base: these stay as stored
        tensors = {name: value.float() for name, value in tensors.items()}
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
    config.setdefault("adapter", {})  # files from before there were adapters
    return strict(AlloSR2Config, config, f"{where}: config"), training


def _check_names(expected: Mapping[str, Shape], found: Mapping[str, tuple[Shape, str]], where: str) -> None:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        raise AlloSR2Error(f"{where}: tensors missing: {listed(missing)}; not expected: {listed(extra)}")
    for name, (shape, dtype) in found.items():
        if shape != expected[name]:
            raise AlloSR2Error(f"{where}: {name}: expected shape {expected[name]}; got {shape}")
        if dtype not in DTYPE_NAMES.values():
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
    write_checkpoint(path, config, training, tensors, dtype=dtype, title=title, license=license)


def write_checkpoint(
    path: str | os.PathLike[str],
    config: AlloSR2Config,
    training: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype,
    title: str,
    license: str,
) -> None:
    """Write named tensors as a checkpoint, atomically (temporary file, fsync, rename).

    Raises AlloSR2Error, and leaves an older file as it was, when the tensors are not those the configuration asks for
    or are not finite in `dtype`.
    """
    path = Path(path)
    stored = {k: v.detach().to("cpu", dtype).contiguous() for k, v in tensors.items()}
    found = {k: (tuple(v.shape), DTYPE_NAMES.get(v.dtype, str(v.dtype))) for k, v in stored.items()}
    expected = expected_tensors(config, {name: shape for name, (shape, _) in found.items()})
    _check_names(expected, found, path.name)
    _check_finite(stored, f"{path.name} (in {dtype})")
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
    write_safetensors(path, stored, metadata)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically; folders are made. An older file stays as it was until the new one is whole.

    Raises AlloSR2Error when the place cannot be written.
    """

    def write(partial: Path) -> None:
        save_file(dict(tensors), partial, metadata=dict(metadata))
        partial.chmod(0o644)  # safetensors writes for the owner alone

    try:
        write_atomically(path, write)
    except (OSError, SafetensorError) as error:
        raise AlloSR2Error(f"{path}: could not be written: {error}") from error


def _rounded(module: M, dtype: torch.dtype) -> M:
    """A copy whose weights took the way through `dtype`."""
    rounded = copy.deepcopy(module)
    rounded.load_state_dict({k: v.to(dtype).to(v.dtype) for k, v in module.state_dict().items()})
    return rounded.requires_grad_(False)
