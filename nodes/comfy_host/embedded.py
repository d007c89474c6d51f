"""A standalone checkpoint's networks as the host's own objects: MODEL (a ModelPatcher) and VAE.

They are built so that everything of the host works on them: weight patches (LoRA loaders), samplers, memory management,
tiled VAE nodes. The prior's weights stay as they are; what AlloSR2 learned on top is applied as host patches. The type
they compute in is the host's choice (`dtypes.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models_base
import torch
from torch import Tensor

from ...allosr2_core.checkpoint.format import LORA_ENCODER, LORA_FLOW, Checkpoint
from ...allosr2_core.errors import AlloSR2Error
from ...allosr2_core.networks.patch_autoencoder import PatchAutoencoder
from ...allosr2_core.networks.unet import VelocityUNet
from ...allosr2_core.snr import SNRHead
from . import dtypes
from .layers import with_host_layers
from .patches import add_patches_strictly, keep_exact
from .vae import patch_encoder


class _HostCall:
    """Gives a velocity network of the core the call the host's `BaseModel` makes."""

    dtype = torch.float32
    """Of the convolutions' weights, for the host; what depends on the time alone stays fp32."""
    cast: torch.dtype | None = None
    """What the host's layers cast these weights to for a product; None: they are used as they are."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of the maps."""
        return self.cast or self.dtype

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


class EmbeddedModel(comfy.model_base.BaseModel):
    """The host's model around a network of the core."""

    def memory_required(self, input_shape: Sequence[int], *_: object, **__: object) -> float:
        """Bytes for one pass on latents of this shape: about six maps of the finest width, half as much again below."""
        size = management.dtype_size(self.diffusion_model.compute_dtype)
        return 9.0 * self.diffusion_model.params.channels[0] * _cells(input_shape) * size


class _ModelConfig(comfy.supported_models_base.BASE):
    """What `BaseModel` asks of a model family. The network is put in by `build_model`."""

    unet_extra_config: dict[str, object] = {}
    sampling_settings = {"shift": 0.0}  # the host's log shift: exp(0) = 1 leaves t as it is
    supported_inference_dtypes = dtypes.SUPPORTED


def build_model(checkpoint: Checkpoint, strength: float) -> comfy.model_patcher.ModelPatcher:
    """A host MODEL around the checkpoint's frozen prior, with what the SR flow adds patched in at `strength`.

    `model.model.apply_model(z, t)` is z - t v(z, t): FLUX's convention, which is the project's.
    """
    prior, config = checkpoint.build_prior(), checkpoint.config
    if not isinstance(prior, VelocityUNet):
        raise AlloSR2Error(f"expected a checkpoint with a network of type 'unet'; got {config.network.get('type')!r}")
    family = _ModelConfig({"disable_unet_model_creation": True})
    family.latent_format = PatchLatentFormat(config.latent_channels, config.latent_scale, config.latent_shift)
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    weights = prior.state_dict()
    stored, cast = dtypes.of_model(load_device, sum(value.numel() for value in weights.values()))
    family.set_inference_dtype(stored, cast)
    model = EmbeddedModel(family, model_type=comfy.model_base.ModelType.FLUX, device=offload_device)
    network = HostUNet(prior.params)
    network.load_state_dict(weights)
    network.compute_in(stored)
    network.dtype, network.cast = stored, cast
    with_host_layers(network, comfy.ops.pick_operations(stored, cast, load_device=load_device))
    if network.compute_dtype != torch.float32:  # where it takes half the time; in fp32 it is a tenth
        network.to(memory_format=torch.channels_last)
    model.diffusion_model = network.eval().requires_grad_(False).to(offload_device)
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)
    keep_exact(patcher, {f"diffusion_model.{name}": value for name, value in weights.items()})
    add_patches_strictly(patcher, checkpoint.group(LORA_FLOW), strength)
    return patcher


class PatchVAE(comfy.sd.VAE):
    """A host VAE whose first stage is the core's `PatchAutoencoder`."""

    def __init__(self, autoencoder: PatchAutoencoder) -> None:
        # The host tells a VAE by its weights and knows none like this one: it is made as the host's VAE without any,
        # pixel space (as Load VAE makes that), and everything of that kind is replaced.
        dtype = dtypes.of_vae(management.vae_device())
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=dtype)
        params = autoencoder.params
        self.encoder_radius, self.decoder_radius = autoencoder.encoder_radius, autoencoder.decoder_radius
        self.downscale_ratio = self.upscale_ratio = params.patch
        self.latent_channels = params.latent_channels
        self.working_dtypes = dtypes.SUPPORTED
        self.input_dtype = torch.float32
        self.disable_offload = False
        # bytes per latent cell: maps at latent resolution and, in the decoder, at pixel resolution
        cell_encode = 3 * params.hidden + 6 * params.patch**2
        cell_decode = 3 * params.hidden + (3 * params.pixel_channels + 9) * params.patch**2
        self.memory_used_encode = lambda shape, dtype: (
            cell_encode * _cells(shape) // params.patch**2 * management.dtype_size(dtype)
        )
        self.memory_used_decode = lambda shape, dtype: cell_decode * _cells(shape) * management.dtype_size(dtype)
        exact = {name: value.clone() for name, value in autoencoder.state_dict().items()}
        autoencoder.compute_in(dtype)
        self.first_stage_model = autoencoder.eval().requires_grad_(False)
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=management.vae_offload_device()
        )
        keep_exact(self.patcher, exact)
        self.size = management.module_size(self.first_stage_model)


def build_vae(checkpoint: Checkpoint, strength: float) -> comfy.sd.VAE:
    """A host VAE around the checkpoint's autoencoder, with what the SR flow adds to its encoder patched in."""
    vae = PatchVAE(checkpoint.build_autoencoder(strength=0.0))
    return patch_encoder(vae, checkpoint.group(LORA_ENCODER), strength)


def build_snr_head(checkpoint: Checkpoint) -> SNRHead | None:
    """The checkpoint's SNR head, on the CPU, in the type that VAEs compute in there; fp32 where that is fp16."""
    head = checkpoint.build_snr_head()
    if head is not None and dtypes.of_vae(torch.device("cpu")) == torch.bfloat16:
        head.compute_in(torch.bfloat16)
    return head


def _cells(shape: Sequence[int]) -> int:
    return int(shape[0] * shape[2] * shape[3])
