"""Run inside ComfyUI's own modules: adapters on small random host models of every family. Prints one JSON object.

python family_worker.py COMFYUI_ROOT PACK FOLDER
"""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from host_worker import gap, load_pack

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


def fill(module: torch.nn.Module, seed: int) -> None:
    """Random weights of the usual size: gains around one, matrices that keep their input's spread."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():  # SD3 has its positions in a buffer
            noise = torch.randn(value.shape, generator=generator)
            gain = name.endswith(("scale", "norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight", "ln_k.weight"))
            value.copy_(1 + 0.1 * noise if gain else noise * max(1, value[..., :].numel() // value.shape[0]) ** -0.5)


def strips(vae: Any, host: Any, management: Any) -> dict[str, float]:
    """A host VAE decoded and encoded when the device has next to no memory, and with one failed attempt on the way."""
    from allosr2_pack.allosr2_core.layout import Layout
    from allosr2_pack.nodes import host_kl

    latent = torch.randn(1, 16, 12, 9)
    pixels = torch.rand(1, 96, 72, 3)
    whole = {"decode": vae.decode(latent), "encode": vae.encode(pixels)}
    real, made, budgets = management.get_free_memory, host_kl.streamed_decode, []

    def fails_once(decoder: Any, raw: torch.Tensor, budget: float, tick: Any) -> torch.Tensor:
        budgets.append(budget)
        if len(budgets) == 1:
            raise management.OOM_EXCEPTION("no memory")
        return made(decoder, raw, budget, tick)

    host_kl.streamed_decode, host_kl.SMALLEST_BUDGET = fails_once, 2**10
    management.get_free_memory = lambda *_, **__: 2.0**20
    picture, layout = torch.empty(96, 72, 3), Layout.plain(96, 72)
    try:
        host.decoder(vae, latent, layout, tile=0, exact=True)(latent, picture)
        found = {
            "decode": gap(picture[None], whole["decode"]),
            "encode": gap(host_kl.encode(vae, pixels, lambda: None), whole["encode"]),
        }
    finally:
        management.get_free_memory, host_kl.streamed_decode = real, made
    return found | {"halved": budgets[1] / budgets[0], "attempts": len(budgets)}


NORM = "diffusion_model.double_blocks.0.img_attn.norm.query_norm"


def namings(
    model_of: Callable[[], Any], gain: str | None, adapted: Callable[[Any], Any], step: Callable[[Any], torch.Tensor]
) -> dict[str, Any]:
    """FLUX.1 whose head norms call their gain so (None: as this host does), under the adapter and under differences.

    adapted: the model with the adapter. step: its velocity.
    """
    from allosr2_pack.allosr2_core.errors import AlloSR2Error
    from allosr2_pack.nodes.host_objects import add_difference
    from host_flux import rename_gains

    def fresh() -> Any:
        model = model_of()
        if gain is not None:
            rename_gains(model.model.diffusion_model, gain)
        return model

    given = {"scale": {f"{NORM}.scale.diff": torch.linspace(-1, 1, 32)}}
    given["weight"] = {f"{NORM}.diff": given["scale"][f"{NORM}.scale.diff"]}
    by_hand = fresh()
    ((_, parameter),) = by_hand.model.get_submodule(NORM).named_parameters()
    plain = step(by_hand)
    parameter += 0.5 * given["scale"][f"{NORM}.scale.diff"]
    expected = step(by_hand)
    found = {"names": sorted(n for n, _ in fresh().model.named_parameters() if n.startswith(NORM + "."))}
    found |= {"moved": gap(expected, plain), "plain": plain, "adapted": step(adapted(fresh())), "differences": {}}
    for spelling, tensors in given.items():
        model = fresh()
        add_difference(model, tensors, 0.5)
        found["differences"][spelling] = gap(step(model), expected)
    try:
        add_difference(fresh(), given["scale"] | given["weight"], 0.5)
    except AlloSR2Error as error:
        found["twice"] = str(error)
    return found


def digest(module: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode() + value.detach().float().contiguous().numpy().tobytes())
    return found.hexdigest()


@torch.inference_mode()
def main(root: str, pack: str, folder: str) -> dict[str, Any]:
    sys.path.insert(0, str(Path(pack) / "tools"))
    from launch_comfyui import host_modules

    host_modules(root, cpu=True)
    import comfy.ldm.models.autoencoder
    import comfy.model_patcher
    import comfy.sd
    import comfy.supported_models
    import host_flux

    load_pack(Path(pack))
    from allosr2_pack.allosr2_core.checkpoint import format as core
    from allosr2_pack.allosr2_core.checkpoint.config import AlloSR2Config
    from allosr2_pack.allosr2_core.errors import AlloSR2Error
    from allosr2_pack.allosr2_core.networks.families import FAMILIES
    from allosr2_pack.nodes import conditioning, host, host_base
    from allosr2_pack.nodes.spec import Spec

    cpu = torch.device("cpu")

    def model_of(family: str, stored: torch.dtype = torch.float32) -> comfy.model_patcher.ModelPatcher:
        kind, settings, _ = MODELS[family]
        if kind.startswith("Flux"):
            settings = host_flux.settings(settings, (3,) if kind == "Flux2" else ())
        config = getattr(comfy.supported_models, kind)(dict(settings))
        config.set_inference_dtype(stored, torch.float32)
        model = config.get_model({}, "")
        fill(model.diffusion_model, seed=5)
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)

    def vae_of(family: str) -> comfy.sd.VAE:
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
        vae.device = vae.output_device = cpu
        vae.vae_dtype = torch.float32
        vae.patcher = comfy.model_patcher.ModelPatcher(vae.first_stage_model, load_device=cpu, offload_device=cpu)
        return vae

    def adapter_of(family: str, layer: str, model: comfy.model_patcher.ModelPatcher) -> core.Checkpoint:
        facts, generator = FAMILIES[family], torch.Generator().manual_seed(7)
        weight = model.model.diffusion_model.get_submodule(layer).weight
        network = {"type": family}
        codec = {"type": "host"}
        if family == "flux":
            network |= {k: v for k, v in MODELS[family][1].items() if k not in ("patch_size", "image_model")}
            del network["in_channels"], network["out_channels"]
            network |= {"latent_channels": 16, "guidance": 1.5}
        tensors = {
            f"{core.LORA_FLOW}diffusion_model.{layer}.lora_A.weight": torch.randn(
                3, weight.shape[1], generator=generator
            ),
            f"{core.LORA_FLOW}diffusion_model.{layer}.lora_B.weight": torch.randn(
                weight.shape[0], 3, generator=generator
            ),
            f"{core.LORA_FLOW}diffusion_model.{layer}.alpha": torch.tensor(0.3),
            f"{core.LORA_ENCODER}encoder.conv_in.lora_A.weight": torch.randn(2, 3, 3, 3, generator=generator),
            f"{core.LORA_ENCODER}encoder.conv_in.lora_B.weight": torch.randn(32, 2, 1, 1, generator=generator),
            f"{core.LORA_ENCODER}encoder.conv_in.alpha": torch.tensor(0.5),
            "null.context": torch.randn(1, 4, 20, generator=generator),
            "null.pooled": torch.randn(1, 12, generator=generator),
        }
        config = AlloSR2Config(
            base=family,
            network=network,
            autoencoder=codec,
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
        path = Path(folder) / f"{family}.safetensors"
        core.write_checkpoint(path, config, {}, tensors, dtype=torch.float32, title="test", license="none")
        return core.load_checkpoint(path)

    out: dict[str, Any] = {}
    models, vaes, adapters = {}, {}, {}
    for family, (_, _, layer) in MODELS.items():
        models[family], vaes[family] = model_of(family), vae_of(family)
        adapters[family] = adapter_of(family, layer, models[family])
    for family, (_, _, layer) in MODELS.items():
        base, vae, checkpoint = models[family], vaes[family], adapters[family]
        channels, down = checkpoint.config.latent_channels, checkpoint.config.latent_downscale
        generator = torch.Generator().manual_seed(8)
        z, t = torch.randn(1, channels, 8, 10, generator=generator), torch.tensor([0.3])
        pixels = torch.rand(1, 4 * down, 5 * down, 3, generator=generator)
        before = (digest(base.model), digest(vae.first_stage_model))
        spec = Spec(family, checkpoint.config, None, checkpoint.null)
        prompt = conditioning.prompt_for(spec, None)
        plain_v, plain_z = host.velocity(base, tuple(z.shape), prompt)(z, t), vae.encode(pixels)
        tuned, encoder = host_base.on_base(checkpoint, family, base, vae, 0.7)
        host.check_fit(spec, encoder, tuned)
        found = host.velocity(tuned, tuple(z.shape), prompt)(z, t)
        encoded = encoder.encode(pixels)

        # nothing fits the device: every layer's weight stays away and is patched when it is used
        evaluate = host.velocity(tuned, tuple(z.shape), prompt)
        tuned.detach()
        tuned.load(cpu, lowvram_model_memory=1)
        offloaded = gap(evaluate(z, t), found)
        stored = {}
        for name, dtype in (("bf16", torch.bfloat16), ("fp8", torch.float8_e4m3fn)):
            small, _ = host_base.on_base(checkpoint, family, model_of(family, dtype), vae, 0.7)
            stored[name] = float((host.velocity(small, tuple(z.shape), prompt)(z, t) - found).square().mean().sqrt())

        # by hand: the weight with the branch added, the network called as the family's forward is
        network, group = base.model.diffusion_model, checkpoint.group(core.LORA_FLOW + "diffusion_model.")
        tuned.detach()
        encoder.patcher.detach()
        after = (digest(base.model), digest(vae.first_stage_model))
        weight = network.get_submodule(layer).weight
        kept = weight.clone()
        weight += 0.7 * 0.3 / 3 * group[f"{layer}.lora_B.weight"] @ group[f"{layer}.lora_A.weight"]
        context, pooled = checkpoint.null
        given: dict[str, Any] = {"context": context, "transformer_options": {}}
        given |= {"y": pooled} if FAMILIES[family].pooled else {}
        given |= {"guidance": torch.tensor([1.5])} if family == "flux" else {}
        given |= {"num_tokens": 4} if family == "z-image" else {}
        if family == "flux2":
            given["context"] = torch.nn.functional.pad(context, (0, 0, 508, 0))
        times = base.model.model_sampling.timestep(t).float()
        expected = network(z, times, **given)
        weight.copy_(kept)
        shift = (
            0.7
            * 0.5
            / 2
            * torch.einsum(
                "or,rikl->oikl",
                checkpoint.group(core.LORA_ENCODER)["encoder.conv_in.lora_B.weight"][..., 0, 0],
                checkpoint.group(core.LORA_ENCODER)["encoder.conv_in.lora_A.weight"],
            )
        )
        conv = vae.first_stage_model.encoder.conv_in.weight
        kept = conv.clone()
        conv += shift
        by_hand = vae.first_stage_model.encode(pixels.movedim(-1, 1) * 2 - 1)
        conv.copy_(kept)
        out[family] = {
            "velocity": gap(found, expected),
            "size": float(expected.std()),
            "moved": float((found - plain_v).abs().mean()),
            "offloaded": offloaded,
            "stored": stored,
            "encoded": gap(encoded, by_hand),
            "encoder_moved": float((encoded - plain_z).abs().mean()),
            "untouched": before == after,
            "same_output": torch.equal(host.velocity(base, tuple(z.shape), prompt)(z, t), plain_v),
            "same_latent": torch.equal(vae.encode(pixels), plain_z),
            "patches_of_the_original": len(base.patches) + len(vae.patcher.patches),
        }
    out["refusals"] = {}
    for wanted, got in (("flux", "z-image"), ("z-image", "flux"), ("sd3.5", "flux2"), ("flux2", "sd3.5")):
        try:
            host_base.on_base(adapters[wanted], wanted, models[got], vaes[wanted], 1.0)
        except AlloSR2Error as error:
            out["refusals"][f"{got} for {wanted}"] = str(error)
    schnell = dict(MODELS["flux"][1]) | {"guidance_embed": False}
    MODELS["schnell"] = ("FluxSchnell", schnell, "")
    try:
        host_base.on_base(adapters["flux"], "flux", model_of("schnell"), vaes["flux"], 1.0)
    except AlloSR2Error as error:
        out["refusals"]["schnell for dev"] = str(error)
    try:
        host_base.on_base(adapters["flux"], "flux", models["flux"], vaes["flux2"], 1.0)
    except AlloSR2Error as error:
        out["refusals"]["other vae"] = str(error)

    z, t = torch.randn(1, 16, 8, 10, generator=torch.Generator().manual_seed(9)), torch.tensor([0.3])
    prompt = conditioning.prompt_for(Spec("flux", adapters["flux"].config, None, adapters["flux"].null), None)

    def adapted(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
        return host_base.on_base(adapters["flux"], "flux", model, vaes["flux"], 0.7)[0]

    def step(model: comfy.model_patcher.ModelPatcher) -> torch.Tensor:
        return host.velocity(model, tuple(z.shape), prompt)(z, t)

    by_name = {
        gain or "own": namings(lambda: model_of("flux"), gain, adapted, step) for gain in (None, "scale", "weight")
    }
    own = {key: by_name["own"][key] for key in ("plain", "adapted")}
    for of in by_name.values():
        of |= {key: gap(of[key], tensor) for key, tensor in own.items()}
    out["namings"] = by_name
    unknown = model_of("flux")
    host_flux.rename_gains(unknown.model.diffusion_model, "amplitude")
    try:
        adapted(unknown)
    except AlloSR2Error as error:
        out["refusals"]["unknown gain"] = str(error)

    out["strips"] = strips(vaes["flux"], host, comfy.model_management)

    # a layer of the right name and another width
    narrow = adapters["z-image"]
    name = f"{core.LORA_FLOW}diffusion_model.{MODELS['z-image'][2]}.lora_B.weight"
    narrow = core.Checkpoint(narrow.config, {}, dict(narrow.tensors) | {name: torch.zeros(5, 3)})
    try:
        host_base.on_base(narrow, "z-image", models["z-image"], vaes["z-image"], 1.0)
    except AlloSR2Error as error:
        out["refusals"]["other width"] = str(error)

    # raw: a stock sampler starts at the latent itself
    raw, _ = host_base.on_base(_raw(adapters["flux"]), "flux", models["flux"], vaes["flux"], 1.0)
    sampling, z = raw.get_model_object("model_sampling"), torch.randn(1, 16, 4, 4)
    sigma = torch.tensor([0.3])
    out["raw_start"] = gap(sampling.noise_scaling(sigma, torch.zeros_like(z), z), z)
    aligned = models["flux"].get_model_object("model_sampling")
    out["aligned_start"] = gap(aligned.noise_scaling(sigma, torch.zeros_like(z), z), 0.7 * z)
    return out


def _raw(checkpoint: Any) -> Any:  # noqa: ANN401 - classes of a package loaded at run time
    import dataclasses

    return dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, init="raw"))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
