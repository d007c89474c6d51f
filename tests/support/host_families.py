"""A small random host model, VAE and adapter of every family. Import it in ComfyUI's own modules, the pack loaded."""

from pathlib import Path
from typing import Any

import comfy.ldm.models.autoencoder
import comfy.sd
import comfy.supported_models
import host_flux
import torch
from allosr2_pack.allosr2_core.bases.registry import FAMILIES
from allosr2_pack.allosr2_core.checkpoint.config import AlloSR2Config
from allosr2_pack.allosr2_core.checkpoint.format import (
    LORA_ENCODER,
    LORA_FLOW,
    Checkpoint,
    load_checkpoint,
    write_checkpoint,
)
from comfy.model_patcher import ModelPatcher

CPU = torch.device("cpu")
CH = {"ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "in_channels": 3, "out_ch": 3}
FLUX = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 12,
    "context_in_dim": 20,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [8, 12, 12],
    "theta": 10_000,
    "qkv_bias": True,
}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    # family: class in comfy.supported_models, its configuration, a layer to adapt
    "flux": ("Flux", FLUX | {"image_model": "flux", "guidance_embed": True}, "double_blocks.0.img_attn.qkv"),
    "z-image": (
        "ZImage",
        {
            "image_model": "lumina2",
            "patch_size": 2,
            "in_channels": 16,
            "dim": 256,
            "n_layers": 1,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "multiple_of": 32,
            "ffn_dim_multiplier": 8.0 / 3.0,
            "qk_norm": True,
            "cap_feat_dim": 20,
            "axes_dims": [32, 48, 48],
            "axes_lens": [1536, 512, 512],
            "rope_theta": 256.0,
            "z_image_modulation": True,
            "time_scale": 1000.0,
            "pad_tokens_multiple": 32,
        },
        "layers.0.attention.qkv",
    ),
    "flux2": (
        "Flux2",
        FLUX
        | {
            "image_model": "flux2",
            "in_channels": 128,
            "out_channels": 128,
            "patch_size": 1,
            "vec_in_dim": None,
            "axes_dim": [8, 8, 8, 8],
            "theta": 2000,
            "mlp_ratio": 3.0,
            "qkv_bias": False,
            "ops_bias": False,
            "mlp_silu_act": True,
            "global_modulation": True,
            "default_ref_method": "index",
            "ref_index_scale": 10.0,
            "guidance_embed": False,
        },
        "single_blocks.0.linear2",
    ),
    "sd3.5": (
        "SD3",
        {
            "in_channels": 16,
            "patch_size": 2,
            "depth": 1,
            "num_patches": 1024,
            "pos_embed_max_size": 32,
            "pos_embed_scaling_factor": None,
            "input_size": None,
            "adm_in_channels": 12,
            "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 20, "out_features": 64}},
            "qk_norm": "rms",
        },
        "joint_blocks.0.x_block.attn.qkv",
    ),
}


SCHNELL = ("FluxSchnell", MODELS["flux"][1] | {"guidance_embed": False}, "")
"""The same transformer as FLUX.1's without guidance."""


def fill(module: torch.nn.Module, seed: int) -> None:
    """Random weights of the usual size: gains around one, matrices that keep their input's spread."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():  # SD3 has its positions in a buffer
            noise = torch.randn(value.shape, generator=generator)
            gain = name.endswith(("scale", "norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight", "ln_k.weight"))
            value.copy_(1 + 0.1 * noise if gain else noise * max(1, value[..., :].numel() // value.shape[0]) ** -0.5)


def model_of(family: str, stored: torch.dtype = torch.float32) -> ModelPatcher:
    """A random MODEL of a family of MODELS, or of "schnell", with weights stored in a type and used in float32."""
    kind, settings, _ = SCHNELL if family == "schnell" else MODELS[family]
    if kind.startswith("Flux"):
        settings = host_flux.settings(settings, (3,) if kind == "Flux2" else ())
    config = getattr(comfy.supported_models, kind)(dict(settings))
    config.set_inference_dtype(stored, torch.float32)
    model = config.get_model({}, "")
    fill(model.diffusion_model, seed=5)
    return ModelPatcher(model, load_device=CPU, offload_device=CPU)


def vae_of(family: str) -> comfy.sd.VAE:
    """A random KL autoencoder with the family's latents, as a host VAE."""
    vae, facts = comfy.sd.VAE(sd={}), FAMILIES[family]
    params = CH | {"double_z": True, "z_channels": facts.latent_channels, "resolution": 256, "attn_resolutions": []}
    params |= {"dropout": 0.0, "ch_mult": [1] * (4 if facts.latent_downscale == 8 else 5)}
    place = "comfy.ldm.modules.diffusionmodules.model."
    vae.first_stage_model = comfy.ldm.models.autoencoder.AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": place + "Encoder", "params": params},
        decoder_config={"target": place + "Decoder", "params": params},
    )
    fill(vae.first_stage_model, seed=6)
    vae.latent_channels, vae.working_dtypes = facts.latent_channels, [torch.float32]
    vae.downscale_ratio = vae.upscale_ratio = facts.latent_downscale
    vae.device = vae.output_device = CPU
    vae.vae_dtype = torch.float32
    vae.patcher = ModelPatcher(vae.first_stage_model, load_device=CPU, offload_device=CPU)
    return vae


def adapter_of(family: str, model: ModelPatcher, folder: Path) -> Checkpoint:
    """A random adapter for one layer of the model and one of the VAE's encoder, written and read again."""
    facts, generator = FAMILIES[family], torch.Generator().manual_seed(7)
    layer = MODELS[family][2]
    rows, columns = model.model.diffusion_model.get_submodule(layer).weight.shape
    network: dict[str, Any] = {"type": family}
    if family == "flux":
        network |= {k: v for k, v in MODELS[family][1].items() if k not in ("patch_size", "image_model")}
        del network["in_channels"], network["out_channels"]
        network |= {"latent_channels": 16, "guidance": 1.5}
    flow, encoder = f"{LORA_FLOW}diffusion_model.{layer}", f"{LORA_ENCODER}encoder.conv_in"
    tensors = {
        f"{flow}.lora_A.weight": torch.randn(3, columns, generator=generator),
        f"{flow}.lora_B.weight": torch.randn(rows, 3, generator=generator),
        f"{flow}.alpha": torch.tensor(0.3),
        f"{encoder}.lora_A.weight": torch.randn(2, 3, 3, 3, generator=generator),
        f"{encoder}.lora_B.weight": torch.randn(32, 2, 1, 1, generator=generator),
        f"{encoder}.alpha": torch.tensor(0.5),
        "null.context": torch.randn(1, 4, 20, generator=generator),
        "null.pooled": torch.randn(1, 12, generator=generator),
    }
    config = AlloSR2Config(
        base=family,
        network=network,
        autoencoder={"type": "host"},
        adapter={"transformer": [layer.replace(".", r"\.")], "vae_encoder": ["conv_in"]},
        snr_head={},
        init="aligned",
        t_star=0.3,
        t_min=0.3,
        t_max=0.3,
        t_method="calibrated",
        scale=4,
        trained_size=256,
        tile_size=256,
        latent_channels=facts.latent_channels,
        latent_downscale=facts.latent_downscale,
        latent_scale=facts.latent_scale,
        latent_shift=facts.latent_shift,
    )
    path = folder / f"{family}.safetensors"
    write_checkpoint(path, config, {}, tensors, dtype=torch.float32, title="test", license="none")
    return load_checkpoint(path)
