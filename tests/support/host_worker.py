"""Run inside ComfyUI's own modules, without a server: what the pack's host objects compute. Prints one JSON object.

python host_worker.py COMFYUI_ROOT PACK CHECKPOINT
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import torch


def load_pack(folder: Path) -> ModuleType:
    """The pack as ComfyUI imports it: a package made of its folder."""
    spec = importlib.util.spec_from_file_location("allosr2_pack", folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["allosr2_pack"] = module
    spec.loader.exec_module(module)
    return module


def gap(one: torch.Tensor, two: torch.Tensor) -> float:
    assert one.shape == two.shape, (one.shape, two.shape)
    return float((one - two).abs().max())


def flow_on_a_small_device(module: ModuleType, model: object, config: object) -> dict:
    """The node's step where more than 20 cells a side do not fit: automatic tiles, then tiles the user asked for."""
    from comfy.model_management import OOM_EXCEPTION

    z = torch.randn(1, config.latent_channels, 40, 24, generator=torch.Generator().manual_seed(2))
    given = {"prompt": None, "overlap": 16, "tick": lambda: None}
    real, sides = module.velocity, []

    def limited(*args: object) -> object:
        run = real(*args)

        def evaluate(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            sides.append(max(z.shape[2:]))
            if sides[-1] > 20:
                raise OOM_EXCEPTION("no memory")
            return run(z, t)

        return evaluate

    module.velocity = limited
    try:
        automatic = module.step(model, z, torch.tensor([0.3]), config, tile=0, **given)
        try:
            module.step(model, z, torch.tensor([0.3]), config, tile=128, **given)
        except OOM_EXCEPTION as error:
            refused = str(error)
    finally:
        module.velocity = real
    expected = module.step(model, z, torch.tensor([0.3]), config, tile=64, **given)
    return {"gap": gap(automatic, expected), "sides": sides, "refused": refused}


def progress_of_the_nodes(model: object, vae: object, spec: object) -> list[list[int]]:
    """[ticks, total] of each bar when a picture goes through the nodes in tiles smaller than the checkpoint's."""
    import comfy.utils
    from allosr2_pack.nodes.one_step_upscale import AlloSR2OneStepUpscale
    from allosr2_pack.nodes.snr_timestep import SNRTimestepEstimate
    from allosr2_pack.nodes.tiled_decode import TiledDecode

    bars: list[list[int]] = []

    def update(value: int, total: int, *_: object, **__: object) -> None:
        if value == 1:
            bars.append([])
        bars[-1][:] = [value, total]

    comfy.utils.set_progress_bar_global_hook(update)
    try:
        given = {"size_by": "scale", "scale": 4.0, "long_edge": 3840, "tile": 64, "overlap": 16}
        image = torch.rand(2, 50, 40, 3, generator=torch.Generator().manual_seed(5))
        SNRTimestepEstimate.execute(image, vae, spec, "predicted", 0.2)
        (latent,) = AlloSR2OneStepUpscale.execute(model, vae, spec, image, **given).result
        TiledDecode.execute(vae, latent, realism=1.0, color="none", tile=64, mode="exact")
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    return bars


@torch.inference_mode()
def main(root: str, pack: str, checkpoint_file: str) -> dict:
    sys.path.insert(0, str(Path(pack) / "tools"))
    from launch_comfyui import host_modules

    host_modules(root, cpu=True)
    importlib.import_module("comfy.cli_args").args.force_fp32 = True  # what the library is compared with it in
    import comfy.model_management
    import comfy.samplers
    import comfy.sd

    load_pack(Path(pack))
    from allosr2_pack.allosr2_core.checkpoint.format import LORA_FLOW, load_checkpoint
    from allosr2_pack.allosr2_core.errors import AlloSR2Error
    from allosr2_pack.allosr2_core.flow import one_step, start_state
    from allosr2_pack.nodes.comfy_host import model as host_model
    from allosr2_pack.nodes.comfy_host.embedded import build_model, build_vae
    from allosr2_pack.nodes.comfy_host.patches import add_patches_strictly
    from allosr2_pack.nodes.spec import Spec

    checkpoint = load_checkpoint(checkpoint_file)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, checkpoint.config.latent_channels, 12, 20, generator=generator)
    t = torch.tensor([0.2, 0.45])
    out: dict = {"apply_model": {}, "velocity": {}, "encode": {}}

    for strength in (0.0, 0.5, 1.0):
        model = build_model(checkpoint, strength)
        velocity = host_model.velocity(model, tuple(z.shape))  # loads the model with its patches
        expected = checkpoint.build_network(strength)(z, t)
        x0 = model.model.apply_model(z, t)
        out["apply_model"][str(strength)] = gap(x0, z - t.reshape(-1, 1, 1, 1) * expected)
        out["velocity"][str(strength)] = gap(velocity(z, t), expected)
        out["memory_required"] = model.memory_required(list(z.shape))
    model.detach()  # takes the patches off again
    prior = checkpoint.build_prior().state_dict()
    out["prior_untouched"] = max(gap(v, prior[k]) for k, v in model.model.diffusion_model.state_dict().items())

    # the same step through the host's own sampler: no noise, sigmas [t, 0]
    model = build_model(checkpoint, 1.0)
    condition = [[torch.zeros(1, 1, 8), {}]]
    sampled = comfy.samplers.sample(
        model,
        noise=torch.zeros_like(z[:1]),
        positive=condition,
        negative=condition,
        cfg=1.0,
        device=model.load_device,
        sampler=comfy.samplers.ksampler("euler"),
        sigmas=torch.tensor([0.3, 0.0]),
        latent_image=model.model.process_latent_out(z[:1]),
        disable_pbar=True,
        seed=0,
    )
    times = torch.tensor([0.3])
    network = checkpoint.build_network(1.0)
    z_hr = one_step(network, start_state(z[:1], times, "aligned"), times)
    out["sampler"] = gap(sampled, model.model.process_latent_out(z_hr))

    # the host's LoRA loader takes the same tensors from a file of their own, on top of what is there
    tuned, _ = comfy.sd.load_lora_for_models(model, None, checkpoint.group(LORA_FLOW), 0.5, 0.0)
    comfy.model_management.load_models_gpu([tuned])
    expected = checkpoint.build_network(1.5)(z, t)
    out["lora_loader"] = gap(tuned.model.apply_model(z, t), z - t.reshape(-1, 1, 1, 1) * expected)

    out["refusals"] = {}
    wrong = {
        "unknown": {"diffusion_model.absent.diff": torch.zeros(1)},
        "shape": {"diffusion_model.conv_in.diff": torch.zeros(2, 2)},
        "partial": checkpoint.group(LORA_FLOW) | {"diffusion_model.more.diff_b": torch.zeros(3)},
    }
    for name, tensors in wrong.items():
        try:
            add_patches_strictly(build_model(checkpoint, 1.0), tensors, 1.0)
        except AlloSR2Error as error:
            out["refusals"][name] = str(error)

    out["out_of_memory"] = flow_on_a_small_device(host_model, build_model(checkpoint, 1.0), checkpoint.config)

    spec = Spec("small", checkpoint.config, checkpoint.build_snr_head(), None)
    parts = build_model(checkpoint, 1.0), build_vae(checkpoint, 1.0)
    out["progress"] = progress_of_the_nodes(*parts, spec)

    pixels = torch.rand(2, 48, 64, 3, generator=generator)
    for strength in (0.0, 1.0):
        vae, core = build_vae(checkpoint, strength), checkpoint.build_autoencoder(strength)
        latent = vae.encode(pixels)
        out["encode"][str(strength)] = gap(latent, core.encode(pixels.movedim(-1, 1) * 2 - 1))
    decoded = (core.decode(latent).movedim(1, -1) * 0.5 + 0.5).clamp(0, 1)
    out["decode"] = gap(vae.decode(latent), decoded)
    out["decode_tiled"] = gap(vae.decode_tiled(latent, tile_x=12, tile_y=12, overlap=4), decoded)
    out["encode_tiled"] = gap(vae.encode_tiled(pixels, tile_x=64, tile_y=64, overlap=16), latent)
    out["vae_memory"] = [vae.memory_used_encode(pixels.movedim(-1, 1).shape, torch.float32)]
    out["vae_memory"].append(vae.memory_used_decode(latent.shape, torch.float32))
    out["cropped"] = list(vae.encode(torch.rand(1, 21, 34, 3)).shape)
    return out


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
