"""What adapters do on small host models, measured. Import it in ComfyUI's own modules, with the pack loaded."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import host_flux
import torch
from allosr2_pack.allosr2_core.bases.registry import FAMILIES
from allosr2_pack.allosr2_core.checkpoint.format import LORA_ENCODER, LORA_FLOW, Checkpoint
from allosr2_pack.allosr2_core.errors import AlloSR2Error
from allosr2_pack.allosr2_core.layout import Layout
from allosr2_pack.nodes.comfy_host import kl_autoencoder
from allosr2_pack.nodes.comfy_host.adapter import apply_adapter
from allosr2_pack.nodes.comfy_host.fit import check_fit
from allosr2_pack.nodes.comfy_host.model import velocity
from allosr2_pack.nodes.comfy_host.patches import add_patches_strictly
from allosr2_pack.nodes.comfy_host.vae import decoder, without_patches
from allosr2_pack.nodes.conditioning import prompt_for
from allosr2_pack.nodes.spec import Spec
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from host_families import CPU, MODELS, model_of
from host_worker import gap
from torch import Tensor

STRENGTH = 0.7
NORM = "diffusion_model.double_blocks.0.img_attn.norm.query_norm"


def one_step(family: str, base: ModelPatcher, vae: VAE, checkpoint: Checkpoint) -> dict[str, Any]:
    """Velocity and latents under the adapter against those by hand, on whole, offloaded and narrow weights."""
    channels, down = checkpoint.config.latent_channels, checkpoint.config.latent_downscale
    generator = torch.Generator().manual_seed(8)
    z, t = torch.randn(1, channels, 8, 10, generator=generator), torch.tensor([0.3])
    pixels = torch.rand(1, 4 * down, 5 * down, 3, generator=generator)
    before = (digest(base.model), digest(vae.first_stage_model))
    spec = Spec(family, checkpoint.config, None, checkpoint.null)
    prompt = prompt_for(spec, None)

    def v_of(model: ModelPatcher) -> Tensor:
        return velocity(model, tuple(z.shape), prompt)(z, t)

    plain_v, plain_z = v_of(base), vae.encode(pixels)
    tuned, encoder = apply_adapter(checkpoint, family, base, vae, STRENGTH)
    check_fit(spec, encoder, tuned)
    found, encoded = v_of(tuned), encoder.encode(pixels)
    offloaded = gap(_offloaded(tuned, z, t, prompt), found)
    stored = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp8", torch.float8_e4m3fn)):
        small, _ = apply_adapter(checkpoint, family, model_of(family, dtype), vae, STRENGTH)
        stored[name] = float((v_of(small) - found).square().mean().sqrt())
    back = torch.equal(without_patches(encoder).encode(pixels), plain_z)
    tuned.detach()
    encoder.patcher.detach()
    after = (digest(base.model), digest(vae.first_stage_model))
    expected = velocity_by_hand(family, base, checkpoint, z, t)
    return {
        "velocity": gap(found, expected),
        "size": float(expected.std()),
        "moved": float((found - plain_v).abs().mean()),
        "offloaded": offloaded,
        "stored": stored,
        "encoded": gap(encoded, latent_by_hand(vae, checkpoint, pixels)),
        "encoder_moved": float((encoded - plain_z).abs().mean()),
        "plain_encoder": back,
        "untouched": before == after,
        "same_output": torch.equal(v_of(base), plain_v),
        "same_latent": torch.equal(vae.encode(pixels), plain_z),
        "patches_of_the_original": len(base.patches) + len(vae.patcher.patches),
    }


def _offloaded(tuned: ModelPatcher, z: Tensor, t: Tensor, prompt: Any) -> Tensor:
    """The velocity where nothing fits the device: every layer's weight stays away and is patched when it is used."""
    evaluate = velocity(tuned, tuple(z.shape), prompt)
    tuned.detach()
    tuned.load(CPU, lowvram_model_memory=1)
    return evaluate(z, t)


def velocity_by_hand(family: str, base: ModelPatcher, checkpoint: Checkpoint, z: Tensor, t: Tensor) -> Tensor:
    """The weight with the branch added, and the network called as the family's forward is."""
    network, layer = base.model.diffusion_model, MODELS[family][2]
    group = checkpoint.group(LORA_FLOW + "diffusion_model.")
    weight = network.get_submodule(layer).weight
    kept = weight.clone()
    weight += STRENGTH * 0.3 / 3 * group[f"{layer}.lora_B.weight"] @ group[f"{layer}.lora_A.weight"]
    context, pooled = checkpoint.null
    given: dict[str, Any] = {"context": context, "transformer_options": {}}
    given |= {"y": pooled} if FAMILIES[family].pooled else {}
    given |= {"guidance": torch.tensor([1.5])} if family == "flux" else {}
    given |= {"num_tokens": 4} if family == "z-image" else {}
    if family == "flux2":
        given["context"] = torch.nn.functional.pad(context, (0, 0, 508, 0))
    expected = network(z, base.model.model_sampling.timestep(t).float(), **given)
    weight.copy_(kept)
    return expected


def latent_by_hand(vae: VAE, checkpoint: Checkpoint, pixels: Tensor) -> Tensor:
    """The latents of an encoder whose first layer has the branch added."""
    group = checkpoint.group(LORA_ENCODER)
    up, down = group["encoder.conv_in.lora_B.weight"][..., 0, 0], group["encoder.conv_in.lora_A.weight"]
    conv = vae.first_stage_model.encoder.conv_in.weight
    kept = conv.clone()
    conv += STRENGTH * 0.5 / 2 * torch.einsum("or,rikl->oikl", up, down)
    latent = vae.first_stage_model.encode(pixels.movedim(-1, 1) * 2 - 1)
    conv.copy_(kept)
    return latent


def refusals(
    models: dict[str, ModelPatcher], vaes: dict[str, VAE], adapters: dict[str, Checkpoint]
) -> dict[str, str | None]:
    """The messages for what an adapter was not trained on."""

    def message(adapter: str, model: ModelPatcher, vae: str | None = None, checkpoint: Any = None) -> str | None:
        try:
            apply_adapter(checkpoint or adapters[adapter], adapter, model, vaes[vae or adapter], 1.0)
        except AlloSR2Error as error:
            return str(error)
        return None

    pairs = (("flux", "z-image"), ("z-image", "flux"), ("sd3.5", "flux2"), ("flux2", "sd3.5"))
    found = {f"{got} for {wanted}": message(wanted, models[got]) for wanted, got in pairs}
    found["schnell for dev"] = message("flux", model_of("schnell"))
    found["other vae"] = message("flux", models["flux"], vae="flux2")
    unknown = model_of("flux")
    host_flux.rename_gains(unknown.model.diffusion_model, "amplitude")
    found["unknown gain"] = message("flux", unknown)
    of = adapters["z-image"]
    name = f"{LORA_FLOW}diffusion_model.{MODELS['z-image'][2]}.lora_B.weight"
    narrow = Checkpoint(of.config, {}, dict(of.tensors) | {name: torch.zeros(5, 3)})  # the right name, another width
    found["other width"] = message("z-image", models["z-image"], checkpoint=narrow)
    return found


def namings(vae: VAE, checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """FLUX.1 whose head norms call their gain by either name, or as this host does ("own"); gaps are to that one."""
    z, t = torch.randn(1, 16, 8, 10, generator=torch.Generator().manual_seed(9)), torch.tensor([0.3])
    prompt = prompt_for(Spec("flux", checkpoint.config, None, checkpoint.null), None)

    def adapted(model: ModelPatcher) -> ModelPatcher:
        return apply_adapter(checkpoint, "flux", model, vae, STRENGTH)[0]

    def step(model: ModelPatcher) -> Tensor:
        return velocity(model, tuple(z.shape), prompt)(z, t)

    by_name = {gain or "own": _naming(gain, adapted, step) for gain in (None, "scale", "weight")}
    own = {key: by_name["own"][key] for key in ("plain", "adapted")}
    for of in by_name.values():
        of |= {key: gap(of[key], tensor) for key, tensor in own.items()}
    return by_name


def _naming(
    gain: str | None, adapted: Callable[[ModelPatcher], ModelPatcher], step: Callable[[ModelPatcher], Tensor]
) -> dict[str, Any]:
    """One name of the gain (None: the host's own), under the adapter and under differences.

    adapted: the model with the adapter. step: its velocity.
    """

    def fresh() -> ModelPatcher:
        model = model_of("flux")
        if gain is not None:
            host_flux.rename_gains(model.model.diffusion_model, gain)
        return model

    given = {"scale": {f"{NORM}.scale.diff": torch.linspace(-1, 1, 32)}}
    given["weight"] = {f"{NORM}.diff": given["scale"][f"{NORM}.scale.diff"]}
    by_hand = fresh()
    ((_, parameter),) = by_hand.model.get_submodule(NORM).named_parameters()
    plain = step(by_hand)
    parameter += 0.5 * given["scale"][f"{NORM}.scale.diff"]
    expected = step(by_hand)
    found: dict[str, Any] = {"names": sorted(n for n, _ in fresh().model.named_parameters() if n.startswith(NORM))}
    found |= {"moved": gap(expected, plain), "plain": plain, "adapted": step(adapted(fresh())), "differences": {}}
    for spelling, tensors in given.items():
        model = fresh()
        add_patches_strictly(model, tensors, 0.5)
        found["differences"][spelling] = gap(step(model), expected)
    try:
        add_patches_strictly(fresh(), given["scale"] | given["weight"], 0.5)
    except AlloSR2Error as error:
        found["twice"] = str(error)
    return found


def strips(vae: VAE) -> dict[str, float]:
    """A VAE decoded and encoded when the device has next to no memory, and with one failed attempt on the way."""
    latent, pixels = torch.randn(1, 16, 12, 9), torch.rand(1, 96, 72, 3)
    whole = {"decode": vae.decode(latent), "encode": vae.encode(pixels)}
    real, made, budgets = model_management.get_free_memory, kl_autoencoder.streamed_decode, []

    def fails_once(decoder: Any, raw: Tensor, budget: float, tick: Any) -> Tensor:
        budgets.append(budget)
        if len(budgets) == 1:
            raise model_management.OOM_EXCEPTION("no memory")
        return made(decoder, raw, budget, tick)

    kl_autoencoder.streamed_decode, kl_autoencoder.SMALLEST_BUDGET = fails_once, 2**10
    model_management.get_free_memory = lambda *_, **__: 2.0**20
    picture, layout = torch.empty(96, 72, 3), Layout.plain(96, 72)
    try:
        decoder(vae, latent, layout, tile=0, exact=True)(latent, picture, None)
        found = {
            "decode": gap(picture[None], whole["decode"]),
            "encode": gap(kl_autoencoder.encode(vae, pixels, lambda: None), whole["encode"]),
        }
    finally:
        model_management.get_free_memory, kl_autoencoder.streamed_decode = real, made
    return found | {"halved": budgets[1] / budgets[0], "attempts": len(budgets)}


def starts(model: ModelPatcher, vae: VAE, checkpoint: Checkpoint) -> dict[str, Any]:
    """Where a stock sampler starts from a latent z: "raw" adapters at z itself, others at (1 - t) z.

    The model's shift is not its class's own, and must be the same under a raw adapter.
    """
    shifted = model.clone()
    sampling = type(model.get_model_object("model_sampling"))(model.model.model_config)
    sampling.set_parameters(shift=0.5)
    shifted.add_object_patch("model_sampling", sampling)
    raw = dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, init="raw"))
    tuned, _ = apply_adapter(raw, "flux", shifted, vae, 1.0)
    changed, sigma, z = tuned.get_model_object("model_sampling"), torch.tensor([0.3]), torch.randn(1, 16, 4, 4)
    return {
        "raw": gap(changed.noise_scaling(sigma, torch.zeros_like(z), z), z),
        "aligned": gap(sampling.noise_scaling(sigma, torch.zeros_like(z), z), 0.7 * z),
        "sigmas": gap(changed.sigmas, sampling.sigmas),
        "shifts": [changed.shift, model.get_model_object("model_sampling").shift],
    }


def digest(module: torch.nn.Module) -> str:
    """A hash of all parameters and buffers."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode() + value.detach().float().contiguous().numpy().tobytes())
    return found.hexdigest()
