"""The checkpoint's networks as the host's own objects: MODEL (a ModelPatcher) and VAE.

They are built so that everything of the host works on them: weight patches (LoRA loaders), samplers, memory management,
tiled VAE nodes. The prior's weights stay as they are; what AlloSR2 learned on top is applied as host patches.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager

import comfy.latent_formats
import comfy.lora
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import torch
from torch import Tensor

from ..allosr2_core.adapters.weight_diff import listed
from ..allosr2_core.checkpoint.format import LORA_ENCODER, LORA_FLOW, Checkpoint
from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.networks.families import spellings
from ..allosr2_core.networks.patch_autoencoder import PatchAutoencoder
from ..allosr2_core.networks.unet import VelocityUNet

# Suffixes the host's loader reads -> the parameter each one changes.
_PATCH_SUFFIXES = {
    ".diff_b": ".bias",
    ".diff": ".weight",
    ".lora_A.weight": ".weight",
    ".lora_B.weight": ".weight",
    ".alpha": ".weight",
}
_NO_WEIGHTS_WARNING = "No VAE weights detected"


class _HostCall:
    """Gives a velocity network of the core the call the host's `BaseModel` makes."""

    dtype = torch.float32

    def forward(self, x: Tensor, timestep: Tensor, context: object = None, **_: object) -> Tensor:
        """x [B, C, h, w], timestep [B] = the flow's t -> velocity [B, C, h, w]. Text and control are ignored."""
        return super().forward(x, timestep, None)  # type: ignore[misc] - the network is the next class


class HostUNet(_HostCall, VelocityUNet):
    """The small U-Net, under the parameter names of the core."""


class PatchLatentFormat(comfy.latent_formats.LatentFormat):
    """Latents of the embedded autoencoder: scaled = (raw - shift) * scale, no previews."""

    def __init__(self, channels: int, scale: float, shift: float) -> None:
        self.latent_channels = channels
        self.scale_factor, self.shift_factor = scale, shift

    def process_in(self, latent: Tensor) -> Tensor:
        return (latent - self.shift_factor) * self.scale_factor

    def process_out(self, latent: Tensor) -> Tensor:
        return latent / self.scale_factor + self.shift_factor


class _ModelConfig(comfy.supported_models_base.BASE):
    """What `BaseModel` asks of a model family. The network is put in by `build_model`."""

    unet_extra_config: dict[str, object] = {}
    sampling_settings = {"shift": 0.0}  # the host's log shift: exp(0) = 1 leaves t as it is
    supported_inference_dtypes = [torch.float32]


def build_model(checkpoint: Checkpoint, strength: float) -> comfy.model_patcher.ModelPatcher:
    """A host MODEL around the checkpoint's frozen prior, with what the SR flow adds patched in at `strength`.

    `model.model.apply_model(z, t)` is z - t v(z, t): FLUX's convention, which is the project's.
    """
    prior, config = checkpoint.build_prior(), checkpoint.config
    if not isinstance(prior, VelocityUNet):
        raise AlloSR2Error(f"expected a checkpoint with a network of type 'unet'; got {config.network.get('type')!r}")
    family = _ModelConfig({"disable_unet_model_creation": True})
    family.latent_format = PatchLatentFormat(config.latent_channels, config.latent_scale, config.latent_shift)
    # `BaseModel.memory_required` counts 41 943 bytes per fp32 latent cell and unit of this factor; a pass of the
    # network keeps about six maps of its finest width and half as much again below.
    family.memory_usage_factor = 9.0 * 4 * prior.params.channels[0] / 41_943.0
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    model = comfy.model_base.BaseModel(family, model_type=comfy.model_base.ModelType.FLUX, device=offload_device)
    network = HostUNet(prior.params)
    network.load_state_dict(prior.state_dict())
    model.diffusion_model = network.eval().requires_grad_(False).to(offload_device)
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)
    add_difference(patcher, checkpoint.group(LORA_FLOW), strength)
    return patcher


class PatchVAE(comfy.sd.VAE):
    """A host VAE whose first stage is the core's `PatchAutoencoder`."""

    def __init__(self, autoencoder: PatchAutoencoder) -> None:
        with _without_warning(_NO_WEIGHTS_WARNING):
            super().__init__(sd={})  # the host's defaults; its own detection knows no network of this kind
        params = autoencoder.params
        self.downscale_ratio = self.upscale_ratio = params.patch
        self.latent_channels = params.latent_channels
        self.working_dtypes = [torch.float32]
        # bytes per latent cell: maps at latent resolution and, in the decoder, at pixel resolution
        cell_encode = 3 * params.hidden + 6 * params.patch**2
        cell_decode = 3 * params.hidden + (3 * params.pixel_channels + 9) * params.patch**2
        self.memory_used_encode = lambda shape, dtype: (
            cell_encode * _cells(shape) // params.patch**2 * comfy.model_management.dtype_size(dtype)
        )
        self.memory_used_decode = lambda shape, dtype: (
            cell_decode * _cells(shape) * comfy.model_management.dtype_size(dtype)
        )
        self.device = comfy.model_management.vae_device()
        self.vae_dtype = comfy.model_management.vae_dtype(self.device, self.working_dtypes)
        self.output_device = comfy.model_management.intermediate_device()
        self.first_stage_model = autoencoder.eval().requires_grad_(False).to(self.vae_dtype)
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.first_stage_model,
            load_device=self.device,
            offload_device=comfy.model_management.vae_offload_device(),
        )
        self.size = comfy.model_management.module_size(self.first_stage_model)


def build_vae(checkpoint: Checkpoint, strength: float) -> PatchVAE:
    """A host VAE around the checkpoint's autoencoder, with what the SR flow adds to its encoder patched in."""
    vae = PatchVAE(checkpoint.build_autoencoder(strength=0.0))
    add_difference(vae.patcher, checkpoint.group(LORA_ENCODER), strength)
    return vae


def add_difference(patcher: comfy.model_patcher.ModelPatcher, tensors: Mapping[str, Tensor], strength: float) -> None:
    """Add weight differences (`X.diff`, `X.diff_b`) or LoRA pairs (`X.lora_A.weight` ...) through the host's loader.

    X is the full name of a layer in the patched model, in any spelling. The host only logs what it does not recognise
    or what has the wrong shape, and of two differences for one parameter it keeps one, so the matches are counted:
    AlloSR2Error unless every tensor found its parameter, fits it, and no parameter is named in two spellings.
    """
    shapes = {name: tuple(value.shape) for name, value in patcher.model.named_parameters()}  # GGUF's: as unpacked
    keys = {spelling.removesuffix(".weight"): name for name in shapes for spelling in spellings(name)}
    patches = comfy.lora.load_lora(dict(tensors), keys, log_missing=False)
    applied = set(patcher.add_patches(patches, strength))
    missing = []
    layers: dict[str, set[str]] = {}
    for name, value in tensors.items():
        layer, target = _target(name, shapes)
        layers.setdefault(target, set()).add(layer)
        if target not in applied or not _fits(name, tuple(value.shape), shapes[target]):
            missing.append(f"{name} {tuple(value.shape)} for {target} {shapes.get(target, '(not there)')}")
    if missing:
        raise AlloSR2Error(
            f"expected every tensor of the checkpoint's difference to fit a parameter of the model; "
            f"{len(missing)} of {len(tensors)} do not: {listed(missing)}"
        )
    twice = [f"{target} as {' and '.join(sorted(names))}" for target, names in layers.items() if len(names) > 1]
    if twice:
        raise AlloSR2Error(f"expected one name for each parameter; got two for {len(twice)}: {listed(twice)}")


def _fits(name: str, shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether a tensor of a LoRA file can change a parameter of this shape."""
    if name.endswith(".lora_A.weight"):
        return shape[1:] == target[1:]
    if name.endswith(".lora_B.weight"):
        return shape[:1] == target[:1]
    return name.endswith(".alpha") or shape == target


def _target(name: str, parameters: Container[str]) -> tuple[str, str]:
    """What a tensor of a LoRA file names, a layer or a parameter, and the model's own name for what it changes."""
    for suffix, kind in _PATCH_SUFFIXES.items():
        if name.endswith(suffix):
            layer = name.removesuffix(suffix)
            known = (*spellings(layer + kind), *spellings(layer))
            return layer, next((spelling for spelling in known if spelling in parameters), layer)
    return name, name


def _cells(shape: tuple[int, ...]) -> int:
    return int(shape[0] * shape[2] * shape[3])


@contextmanager
def _without_warning(text: str) -> Iterator[None]:
    """Keep one known line of the host out of the log while the block runs."""

    def keep(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
