"""The checkpoint file: one safetensors file, versioned, strict. It is standalone or an adapter for a base (FLUX.1).

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
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..adapters.targets import HOST_ENCODER, HOST_FLOW, Shape
from ..adapters.weight_diff import apply_diff, export_diff, listed
from ..dataclass_reader import read_dataclass
from ..errors import AlloSR2Error, shown
from ..files import write_atomically
from ..foreign_json import parse_json
from ..networks.autoencoders import Autoencoder, autoencoder_params, build_autoencoder
from ..networks.registry import VelocityNetwork, build_network
from ..safetensors_file import opened
from ..snr import SNRHead, SNRHeadParams
from .config import AlloSR2Config
from .contents import FLOW, HEAD, LORA_ENCODER, LORA_FLOW, NULL, VAE, expected_tensors

FORMAT = 1
FORMAT_KEY, CONFIG_KEY, TRAINING_KEY = "allosr2.format", "allosr2.config", "allosr2.training"
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

    def build_prior(self) -> VelocityNetwork:
        """The generative prior, frozen. AlloSR2Error for an adapter: its prior is the base."""
        self._check_standalone()
        return _filled(build_network(self.config.network), self.group(FLOW))

    def build_network(self, strength: float = 1.0) -> VelocityNetwork:
        """The SR velocity network: the prior plus `strength` times what was learned. AlloSR2Error for an adapter."""
        network = self.build_prior()
        apply_diff(network, self.group(LORA_FLOW), HOST_FLOW, strength)
        return network

    def build_autoencoder(self, strength: float = 1.0) -> Autoencoder:
        """The autoencoder with `strength` times what its encoder learned; strength 0 encodes HR pictures exactly.

        AlloSR2Error for an adapter.
        """
        self._check_standalone()
        model = _filled(build_autoencoder(autoencoder_params(self.config.autoencoder)), self.group(VAE))
        apply_diff(model.encoder, self.group(LORA_ENCODER), HOST_ENCODER, strength)
        return model

    def build_snr_head(self) -> SNRHead | None:
        """The SNR head, frozen; None in a file without."""
        if not self.config.snr_head:
            return None
        return _filled(SNRHead(read_dataclass(SNRHeadParams, self.config.snr_head, "snr_head")), self.group(HEAD))

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


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and verify a checkpoint. AlloSR2Error names the file, what was expected and what was found."""
    path = Path(path)
    where = path.name
    with opened(path, where) as file:
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
        raise AlloSR2Error(f"{where}: expected {FORMAT_KEY} {FORMAT}; got {shown(version)}, a newer pack may read it")
    if CONFIG_KEY not in metadata:
        raise AlloSR2Error(f"{where}: expected JSON under {CONFIG_KEY}; there is none")
    config = parse_json(metadata[CONFIG_KEY], f"{where}: {CONFIG_KEY}")
    training = parse_json(metadata.get(TRAINING_KEY, "{}"), f"{where}: {TRAINING_KEY}")
    if not isinstance(config, dict) or not isinstance(training, dict):
        raise AlloSR2Error(f"{where}: expected JSON objects under {CONFIG_KEY} and {TRAINING_KEY}")
    config.setdefault("adapter", {})  # files from before there were adapters
    return read_dataclass(AlloSR2Config, config, f"{where}: config"), training


def _check_names(expected: Mapping[str, Shape], found: Mapping[str, tuple[Shape, str]], where: str) -> None:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        raise AlloSR2Error(f"{where}: tensors missing: {listed(missing)}; not expected: {listed(extra)}")
    for name, (shape, dtype) in found.items():
        if shape != expected[name]:
            raise AlloSR2Error(f"{where}: {name}: expected shape {expected[name]}; got {shown(shape)}")
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
    autoencoder: Autoencoder,
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
    or are not finite in `dtype`, or the metadata is more than a reader takes (`parse_json`).
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
    _parse_metadata(metadata, path.name)  # what could not be read is not written
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
