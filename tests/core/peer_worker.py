"""Runs in a process of its own: answers parity jobs with the host's own code and with diffusers.

    python peer_worker.py COMFYUI_ROOT REPOSITORY

Each line on stdin names a job file and an answer file (torch.save dictionaries); "ok" or an error comes back.
ComfyUI has top-level modules called `nodes` and `utils`, so it must not share a process with the test suite; diffusers
imports torchvision, which needs schemas declared where its own operators do not load.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

root, repository = sys.argv[1:3]
answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever the host prints must not mix with the answers
sys.path += [repository, *(os.path.join(repository, *path) for path in (("tools",), ("tests", "support")))]

from launch_comfyui import host_modules  # noqa: E402

host_modules(root, cpu=True)

import comfy.ldm.flux.model  # noqa: E402
import comfy.ldm.models.autoencoder  # noqa: E402
import comfy.lora  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.supported_models  # noqa: E402
import torch  # noqa: E402
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel  # noqa: E402
from diffusers.pipelines.flux.pipeline_flux import calculate_shift  # noqa: E402
from flux_keys import autoencoder_to_diffusers, transformer_to_diffusers  # noqa: E402
from host_flux import settings  # noqa: E402
from peft import LoraConfig, PeftModel  # noqa: E402

from allosr2_core.bases.registry import spellings  # noqa: E402
from allosr2_core.networks.flux import FluxParams  # noqa: E402
from allosr2_core.networks.kl_autoencoder import KLAutoencoderParams  # noqa: E402

torch.set_num_threads(1)


def spelled(name: str, model: torch.nn.Module) -> str:
    """A parameter's name as the host's model has it."""
    return next((spelling for spelling in spellings(name) if spelling in dict(model.named_parameters())), name)


def load(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    model.load_state_dict({spelled(name, model): value for name, value in state.items()}, strict=True)


def host_flux(job: dict[str, Any]) -> dict[str, Any]:
    model = comfy.ldm.flux.model.Flux(**settings(job["params"]), operations=torch.nn)
    load(model, job["state"])
    return {"v": model(**job["inputs"], transformer_options={})}


def host_autoencoder(job: dict[str, Any]) -> dict[str, Any]:
    place = "comfy.ldm.modules.diffusionmodules.model."
    model = comfy.ldm.models.autoencoder.AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": place + "Encoder", "params": job["params"]},
        decoder_config={"target": place + "Decoder", "params": job["params"]},
    )
    model.load_state_dict(job["state"], strict=True)
    return {"raw": model.encode(job["x"]), "picture": model.decode(job["raw"])}


def host_adapter(job: dict[str, Any]) -> dict[str, Any]:
    """Load adapter tensors as a LoRA node of the host does; give back what they patched and the patched output.

    The host's own loader knows a parameter by the host's own name alone, so the tensors come under that.
    """
    model = comfy.supported_models.Flux(settings(job["params"])).get_model({}, "")
    load(model.diffusion_model, job["state"])
    tensors = {}
    for key, value in job["tensors"].items():
        name = spelled(key.removesuffix(".diff"), model)
        tensors[name.removesuffix(".weight") + ".diff" if key.endswith(".diff") else key] = value
    patcher = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    patches = comfy.lora.load_lora(tensors, comfy.lora.model_lora_keys_unet(model, {}), log_missing=True)
    patched = patcher.add_patches(patches, job["strength"])
    patcher.patch_model()
    names = sorted(spellings(name)[0] for name in patched)
    return {"patched": names, "v": model.diffusion_model(**job["inputs"], transformer_options={})}


def flux_of(job: dict[str, Any]) -> FluxTransformer2DModel:
    params = FluxParams(**job["params"])
    model = FluxTransformer2DModel(
        in_channels=params.in_channels,
        num_layers=params.depth,
        num_single_layers=params.depth_single_blocks,
        attention_head_dim=params.hidden_size // params.num_heads,
        num_attention_heads=params.num_heads,
        joint_attention_dim=params.context_in_dim,
        pooled_projection_dim=params.vec_in_dim,
        guidance_embeds=params.guidance_embed,
        axes_dims_rope=params.axes_dim,
    ).eval()
    model.load_state_dict(transformer_to_diffusers(job["state"], params), strict=True)
    return model


def diffusers_flux(job: dict[str, Any]) -> dict[str, Any]:
    return {"v": flux_of(job)(**job["inputs"], return_dict=False)[0]}


def autoencoder_of(job: dict[str, Any]) -> AutoencoderKL:
    params = KLAutoencoderParams(**job["params"])
    levels = len(params.ch_mult)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(params.ch * mult for mult in params.ch_mult),
        layers_per_block=params.num_res_blocks,
        latent_channels=params.z_channels,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    model.load_state_dict(autoencoder_to_diffusers(job["state"], levels), strict=True)
    return model


def diffusers_autoencoder(job: dict[str, Any]) -> dict[str, Any]:
    model = autoencoder_of(job)
    return {"raw": model.encode(job["x"]).latent_dist.mode(), "picture": model.decode(job["raw"]).sample}


def adapted(network: torch.nn.Module, job: dict[str, Any]) -> PeftModel:
    """The network with a random LoRA on it, which is saved as peft does: in a folder of the adapter's name."""
    torch.manual_seed(5)
    config = LoraConfig(init_lora_weights=False, **job["lora"])  # neither half zero
    model = PeftModel(network, config, adapter_name=job["adapter"])
    model.save_pretrained(job["folder"])
    return model.eval()


def peft_flux(job: dict[str, Any]) -> dict[str, Any]:
    plain = flux_of(job)(**job["inputs"], return_dict=False)[0]
    return {"plain": plain, "v": adapted(flux_of(job), job)(**job["inputs"], return_dict=False)[0]}


def peft_autoencoder(job: dict[str, Any]) -> dict[str, Any]:
    """The mean of the posterior, with the adapter on the encoder or, if asked, on the whole."""
    model = autoencoder_of(job)
    plain = model.encode(job["x"]).latent_dist.mode()
    if job["whole"]:
        model = adapted(model, job)
    else:
        model.encoder = adapted(model.encoder, job)
    return {"plain": plain, "raw": model.encode(job["x"]).latent_dist.mode()}


def diffusers_schedule(job: dict[str, Any]) -> dict[str, Any]:
    """FLUX.1-dev's times for these sigmas, or for so many steps, at a number of image tokens."""
    shifts = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, **shifts)
    scheduler.set_timesteps(job.get("steps"), sigmas=job.get("sigmas"), mu=calculate_shift(job["tokens"]))
    return {"t": scheduler.sigmas}


HOST_JOBS = (host_flux, host_autoencoder, host_adapter)
DIFFUSERS_JOBS = (diffusers_flux, diffusers_autoencoder, diffusers_schedule, peft_flux, peft_autoencoder)
JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    job.__name__: job for job in (*HOST_JOBS, *DIFFUSERS_JOBS)
}
answers.write("ready\n")
answers.flush()
for line in sys.stdin:
    source, target = json.loads(line)
    try:
        job = torch.load(source, weights_only=True)
        with torch.no_grad():
            torch.save(JOBS[job["job"]](job), target)
        answer = "ok"
    except Exception as error:  # reported to the test, which fails with it
        answer = f"{type(error).__name__}: {error}".replace("\n", " ")
    answers.write(answer + "\n")
    answers.flush()
