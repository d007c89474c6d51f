"""Run inside ComfyUI's own modules: the nodes under the host's options for a type. Prints one JSON object.

python dtype_worker.py COMFYUI_ROOT PACK
"""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from host_worker import load_pack
from PIL import Image

OPTIONS = {
    "none": (),
    "fp32": ("force_fp32",),
    "bf16": ("bf16_unet", "bf16_vae"),
    "fp16": ("force_fp16", "fp16_unet", "fp16_vae"),  # the host sets the second where the first is given
    "fp8": ("fp8_e4m3fn_unet", "fp32_vae"),
}
"""Options of the host, as its arguments name them."""
UNITS = {"no units": torch.float32, "units": torch.bfloat16}
"""What the command line's rule says of a CPU, without and with matrix units for bf16."""
BOX = 120, 100, 152, 124
"""Part of the photograph; its result is 128 x 96 px."""
SHAPE = 1, 16, 64, 64
GIVEN = {"size_by": "scale", "scale": 4.0, "long_edge": 3840, "tile": 0, "overlap": 32}


@contextmanager
def host_with(options: tuple[str, ...]) -> Iterator[None]:
    """The host as if it had been started with options; it reads them when a model is loaded."""
    from comfy.cli_args import args

    for option in options:
        setattr(args, option, True)
    try:
        yield
    finally:
        for option in options:
            setattr(args, option, False)


@contextmanager
def cpu_with(units: str) -> Iterator[None]:
    """This CPU with or without units for bf16."""
    from allosr2_pack.nodes.comfy_host.dtypes import precision

    real, precision.auto = precision.auto, lambda *_: UNITS[units]
    try:
        yield
    finally:
        precision.auto = real


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def types() -> dict[str, list[str]]:
    """Of the MODEL's weights, of its products and of the VAE, for every option on both kinds of CPU."""
    from allosr2_pack.nodes.comfy_host import dtypes

    cpu, found = torch.device("cpu"), {}
    for units in UNITS:
        for option, arguments in OPTIONS.items():
            with host_with(arguments), cpu_with(units):
                stored, computed = dtypes.of_model(cpu, 10**7)
                found[f"{option}, {units}"] = [name(stored), name(computed or stored), name(dtypes.of_vae(cpu))]
    return found


def load(arguments: tuple[str, ...], units: str, strength: float = 1.0) -> tuple[Any, Any, Any]:
    """MODEL, VAE and ALLOSR2 of the embedded checkpoint."""
    from allosr2_pack.allosr2_core.checkpoint.format import EMBEDDED_NAME
    from allosr2_pack.nodes.loader import AlloSR2Loader

    with host_with(arguments), cpu_with(units):
        return AlloSR2Loader.execute(EMBEDDED_NAME, strength).result[:3]


def through_the_nodes(image: torch.Tensor, parts: tuple[Any, Any, Any], **more: Any) -> dict[str, Any]:
    """The time of a picture, its latents and its result."""
    from allosr2_pack.nodes.one_step_upscale import AlloSR2OneStepUpscale
    from allosr2_pack.nodes.snr_timestep import SNRTimestepEstimate
    from allosr2_pack.nodes.tiled_decode import TiledDecode

    model, vae, spec = parts
    t, _, _, error = SNRTimestepEstimate.execute(image, vae, spec, "predicted", 0.2).result
    (latent,) = AlloSR2OneStepUpscale.execute(model, vae, spec, image, **GIVEN, **more).result
    exact, blend = (TiledDecode.execute(vae, latent, 1.0, "wavelet", 0, mode).result[0] for mode in ("exact", "blend"))
    return {"t": torch.tensor(t), "map": error, "latent": latent["samples"], "exact": exact, "blend": blend}


def quality(parts: tuple[Any, Any, Any], found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    model, vae, _ = parts
    error = float((found["exact"] - expected["exact"]).square().mean())
    return {
        "psnr": -10.0 * math.log10(max(error, 1e-12)),
        "t": float((found["t"] - expected["t"]).abs()),
        "types": sorted({name(value.dtype) for value in found.values()}),
        "stored": name(model.model.diffusion_model.conv_in.weight.dtype),
        "memory": [model.memory_required(list(SHAPE)), vae.memory_used_decode(SHAPE, vae.vae_dtype)],
    }


def rounding(strength: float) -> dict[str, bool]:
    """Whether weights with patches are the sums in fp32, rounded once to bf16, and without patches the prior's."""
    import comfy.model_management
    from allosr2_pack.allosr2_core.checkpoint.format import embedded_path, load_checkpoint

    def is_rounded(module: torch.nn.Module, expected: torch.nn.Module) -> bool:
        expected.compute_in(torch.bfloat16)
        weights = expected.state_dict()
        return all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())

    checkpoint = load_checkpoint(embedded_path())
    model, vae, _ = load(OPTIONS["bf16"], "units", strength)
    comfy.model_management.load_models_gpu([model, vae.patcher], force_full_load=True)
    found = {
        "flow": is_rounded(model.model.diffusion_model, checkpoint.build_network(strength)),
        "vae": is_rounded(vae.first_stage_model, checkpoint.build_autoencoder(strength)),
    }
    model.detach()
    return found | {"detached": is_rounded(model.model.diffusion_model, checkpoint.build_prior())}


def offloaded(parts: tuple[Any, Any, Any]) -> float:
    """How far the velocity is off, of its size, where no weight fits the device: each is fetched when it is used."""
    from allosr2_pack.nodes.comfy_host.model import velocity

    model, generator = parts[0], torch.Generator().manual_seed(3)
    z, t = torch.randn(1, 16, 12, 20, generator=generator), torch.tensor([0.3])
    evaluate = velocity(model, tuple(z.shape))
    whole = evaluate(z, t)
    model.detach()
    model.load(torch.device("cpu"), lowvram_model_memory=1)
    if not model.model.model_lowvram:
        raise RuntimeError("expected layers that stay away from the device")
    gap = evaluate(z, t) - whole
    model.detach()
    return float(gap.square().mean().sqrt() / whole.std())


def half_precision(image: torch.Tensor, parts: tuple[Any, Any, Any]) -> dict[str, bool]:
    """IMAGE, MASK and LATENT in fp16 into every node: whether the result is that of the same values in fp32."""
    from allosr2_pack.nodes.snr_timestep import SNRTimestepEstimate
    from allosr2_pack.nodes.tiled_decode import TiledDecode

    columns = torch.linspace(0.0, 1.0, image.shape[2]).expand(image.shape[:3])
    ways = []
    for dtype in (torch.float16, torch.float32):
        rgba, mask = (values.half().to(dtype) for values in (torch.cat([image, columns[..., None]], -1), columns))
        way = through_the_nodes(rgba, parts, mask=mask)
        paired = SNRTimestepEstimate.execute(image, *parts[1:], "paired", 0.2, rgba)
        plain = {"samples": way["latent"].half().to(dtype)}  # another node's
        (decoded,) = TiledDecode.execute(parts[1], plain, 1.0, "none", 0, "blend").result
        ways.append(way | {"paired": torch.tensor(paired.result[0]), "of another node": decoded})
    half, full = ways
    return {key: half[key].dtype == torch.float32 and torch.equal(half[key], value) for key, value in full.items()}


@torch.inference_mode()
def main(root: str, pack: str) -> dict[str, Any]:
    sys.path.insert(0, str(Path(pack) / "tools"))
    from launch_comfyui import host_modules

    host_modules(root, cpu=True)
    load_pack(Path(pack))
    with Image.open(Path(pack) / "tests" / "photos" / "citrus-fruits.jpg") as photo:
        image = torch.from_numpy(np.array(photo.convert("RGB").crop(BOX), dtype=np.float32))[None] / 255.0
    exact = load(OPTIONS["fp32"], "units")
    expected = through_the_nodes(image, exact)
    out = {"fp32": quality(exact, expected, expected)}
    away = {"fp32": offloaded(exact)}
    for case, (option, units) in {
        "bf16": ("none", "units"),
        "cast": ("bf16", "no units"),
        "fp16": ("fp16", "no units"),
    }.items():
        parts = load(OPTIONS[option], units)
        out[case] = quality(parts, through_the_nodes(image, parts), expected)
        away[case] = offloaded(parts)
    return {
        "types": types(),
        "quality": out,
        "rounding": {str(strength): rounding(strength) for strength in (0.0, 0.6)},
        "offloaded": away,
        "half": half_precision(image, exact),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
