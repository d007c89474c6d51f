"""What the nodes ask of ComfyUI: files, memory, progress, and calls into the host's MODEL and VAE.

The mathematics is in allosr2_core; this file only hands it functions that run on host objects.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.patcher_extension
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ..allosr2_core.checkpoint.format import EMBEDDED_NAME, embedded_path
from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.flow import VelocityFn
from ..allosr2_core.layout import Layout, count_ticks, flow_plan
from ..allosr2_core.pipeline import Backend, check_finite, sink_into
from ..allosr2_core.pipeline import decode as core_decode
from ..allosr2_core.pipeline import encode as core_encode
from ..allosr2_core.pipeline import step as core_step
from ..allosr2_core.tiling.blended import tile_count, tiled_apply
from ..allosr2_core.tiling.exact import Tick, Window, exact_tile_count, window_of
from . import host_kl
from .host_memory import with_less

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE

    from ..allosr2_core.checkpoint.config import AlloSR2Config
    from .conditioning import Prompt
    from .spec import Spec

FOLDER = "allosr2"
ATTACHMENT = "allosr2"
"""Where a MODEL or VAE with an adapter's patches carries the adapter's name."""
SUFFIXES = {".safetensors"}
LARGEST_DECODE_TILE = 512
"""Side in px of an automatic decode tile. Any size gives the same picture; this one keeps cancelling quick."""
BLEND_OVERLAP = 64
"""px that neighbouring tiles share when a decode is blended."""
SMALLEST_TILE = 64
"""px; the last size tried when the device runs out of memory."""


# --- files ------------------------------------------------------------------------------------------------------------


def register_folder() -> None:
    """Let the host look for checkpoints in models/allosr2 (and wherever the user's path file points it)."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    folders, suffixes = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (folders, set(suffixes) | SUFFIXES)


def checkpoint_names() -> list[str]:
    """The loader's choices: the embedded checkpoint, then the files of models/allosr2."""
    return [EMBEDDED_NAME, *folder_paths.get_filename_list(FOLDER)]


def checkpoint_path(name: str) -> Path:
    """The file behind a choice. AlloSR2Error for a name outside the folder or a file that is gone."""
    if name == EMBEDDED_NAME:
        return embedded_path()
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise AlloSR2Error(f"expected the name of a file in models/{FOLDER}; got {name!r}")
    found = folder_paths.get_full_path(FOLDER, name)
    if found is None:
        raise AlloSR2Error(f"expected {name!r} in models/{FOLDER}; it is not there (any more)")
    return Path(found)


# --- progress and memory ----------------------------------------------------------------------------------------------


class Ticker:
    """Called once per tile: stops when the user cancelled, then moves the node's progress bar on."""

    def __init__(self, total: int) -> None:
        self._bar = comfy.utils.ProgressBar(total)

    def __call__(self) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update(1)


# --- MODEL and VAE as the core's functions ----------------------------------------------------------------------------


def check_fit(spec: Spec, vae: VAE, model: ModelPatcher | None = None) -> None:
    """AlloSR2Error unless the VAE (and the MODEL) are those the loader handed out with this checkpoint, or fit it."""
    expected = (spec.config.latent_channels, spec.config.latent_downscale)
    found = (vae.latent_channels, vae.spacial_compression_encode())
    if found != expected or _is_local(vae) != spec.config.is_local_codec:
        raise AlloSR2Error(
            f"{spec.name!r} needs the VAE of the AlloSR2 Loader ({expected[0]} channels, 1/{expected[1]} size); "
            f"got a VAE with {found[0]} channels, 1/{found[1]} size"
        )
    if model is not None and model.model.latent_format.latent_channels != expected[0]:
        raise AlloSR2Error(
            f"{spec.name!r} needs the MODEL of the AlloSR2 Loader ({expected[0]} latent channels); "
            f"got one with {model.model.latent_format.latent_channels}"
        )
    for kind, patcher in (("VAE", vae.patcher), ("MODEL", model)):
        if spec.config.adapter and patcher is not None and patcher.attachments.get(ATTACHMENT) != spec.name:
            raise AlloSR2Error(f"{spec.name!r} needs the {kind} that the AlloSR2 Loader hands out; got another one")


def encode(vae: VAE, layout: Layout, window: Window, config: AlloSR2Config, tick: Tick) -> Tensor:
    """One enlarged picture by windows -> scaled latents [1, C, h, w].

    A local encoder is tiled exactly; any other sees the picture whole.
    """
    backend = _backend(vae, config)
    if _is_local(vae):
        _load(vae, vae.memory_used_encode((1, 3, config.tile_size, config.tile_size), vae.vae_dtype))
    return with_less(
        lambda tile: core_encode(backend, config, layout, window, tile=tile, tick=tick),
        config.tile_size,
        SMALLEST_TILE if _is_local(vae) else config.tile_size,
    )


def without_patches(vae: VAE) -> VAE:
    """The same VAE with no weight patches: the encoder that high-resolution pictures had in training."""
    plain = copy.copy(vae)
    plain.patcher = vae.patcher.clone()
    plain.patcher.patches = {}
    plain.patcher.patches_uuid = uuid.uuid4()  # tells the host that the loaded weights carry other patches
    return plain


def encode_ticks(layout: Layout, config: AlloSR2Config) -> int:
    """How often `encode` ticks."""
    return count_ticks(layout, config, 0, 0)[0]


def velocity(model: ModelPatcher, latent_shape: tuple[int, int, int, int], prompt: Prompt | None = None) -> VelocityFn:
    """Load a host MODEL with its patches and room for such latents; the velocity it stands for.

    apply_model returns x0 = z - t v (FLUX's convention), hence v = (z - x0) / t. Tensors come and go on the caller's
    device.
    """
    comfy.model_management.load_models_gpu([model], memory_required=model.memory_required(list(latent_shape)))
    base, options = model.model, _transformer_options(model)

    def evaluate(z_BCHW: Tensor, t_B: Tensor) -> Tensor:
        z, t = z_BCHW.to(model.load_device), t_B.to(model.load_device, torch.float32)
        options["sigmas"], options["sample_sigmas"] = t, torch.cat([t[:1], torch.zeros_like(t[:1])])
        conds = {} if prompt is None else _model_conds(base, prompt, z)
        x0 = base.apply_model(z, t, transformer_options=options, **conds)
        return ((z - x0) / t.reshape(-1, 1, 1, 1)).to(z_BCHW.device)

    return evaluate


def step(
    model: ModelPatcher,
    z_lr: Tensor,
    t: Tensor,
    config: AlloSR2Config,
    *,
    prompt: Prompt | None,
    realism: float,
    tile: int,
    overlap: int,
    shifted: bool = False,
    tick: Tick,
) -> Tensor:
    """The one step on a host MODEL; tile, overlap: px of the restored picture. shifted: see the core's `step`.

    With tile 0, what is automatic is halved and tried again each time the device runs out of memory.
    """
    plan = flow_plan(config, z_lr.shape[2], z_lr.shape[3], tile, overlap)
    margin = config.patch_cells if shifted else 0
    evaluate = velocity(model, (1, z_lr.shape[1], plan.tile_height + margin, plan.tile_width + margin), prompt)

    def attempt(size: int) -> Tensor:
        automatic = tile == 0 and size == config.tile_size
        tiles = {"tile": 0 if automatic else size, "overlap": overlap, "shifted": shifted}
        return core_step(evaluate, z_lr, t, config, realism, **tiles, tick=tick)

    return attempt(tile) if tile else with_less(attempt, config.tile_size, SMALLEST_TILE)


def _transformer_options(model: ModelPatcher) -> dict[str, Any]:
    """What the host's samplers pass with every call, so that other packs' patches find what they expect."""
    options = dict(model.model_options.get("transformer_options", {}))
    options["wrappers"] = comfy.patcher_extension.merge_nested_dicts(options.get("wrappers", {}), model.wrappers)
    return options | {"cond_or_uncond": [0]}


def _model_conds(base: BaseModel, prompt: Prompt, z: Tensor) -> dict[str, Any]:
    """The prompt as the keyword arguments of `apply_model`, by the model's own rules (masks, padding, adm)."""
    to_device = {k: v.to(z.device) if isinstance(v, Tensor) else v for k, v in prompt.extras.items()}
    width, height = z.shape[3] * 8, z.shape[2] * 8
    found = base.extra_conds(
        **to_device,
        cross_attn=prompt.context.to(z.device),
        noise=z,
        device=z.device,
        width=width,
        height=height,
        prompt_type="positive",
    )
    return {k: v.process_cond(batch_size=z.shape[0], device=z.device, area=None).cond for k, v in found.items()}


def decoder(
    vae: VAE, latent_BChw: Tensor, layout: Layout, *, tile: int, exact: bool
) -> Callable[[Tensor, Tensor], None]:
    """A function of raw latents [1, C, h, w] and a result [H, W, 3 or 4] that decodes one picture into the other.

    latent: all pictures that will be decoded; one progress bar counts them. tile: px, 0 = automatic. exact: a local
    decoder (the embedded checkpoint's) is tiled with real surroundings, so that the result is that of one pass over the
    whole; any other VAE makes that one pass (KL autoencoders in strips, when memory is short). Otherwise overlapping
    tiles are blended.
    """
    batch, channels, height, width = latent_BChw.shape
    if exact and not _is_local(vae):
        whole, check = Ticker(batch), comfy.model_management.throw_exception_if_processing_interrupted

        def decode_whole(z: Tensor, result: Tensor) -> None:
            _put(host_kl.decode(vae, z, check), result, layout)
            whole()

        return decode_whole
    down = int(vae.spacial_compression_decode())
    tile = tile or _decode_tile(vae, channels, down)
    backend, cells = _backend(vae), max(1, tile // down)
    _load(vae, vae.memory_used_decode((1, channels, min(cells, height), min(cells, width)), vae.vae_dtype))
    shared = min(BLEND_OVERLAP // down, cells // 2)
    count = exact_tile_count(height, width, cells) if exact else tile_count(height, width, cells, shared)
    tick = Ticker(batch * count)

    def decode_exactly(z: Tensor, result: Tensor) -> None:
        def attempt(tile: int) -> None:
            sink, side = sink_into(result, layout), max(1, tile // down)
            core_decode(backend, layout, window_of(z), sink, down=down, side=side, tick=tick)

        with_less(attempt, tile, SMALLEST_TILE)

    def decode_blended(z: Tensor, result: Tensor) -> None:
        pixels_1CHW = tiled_apply(backend.decode, z, cells, shared, scale_out=down, tick=tick)
        check_finite(pixels_1CHW, "the decoder's output")
        _put(vae.process_output(pixels_1CHW).movedim(1, -1), result, layout)

    return decode_exactly if exact else decode_blended


def _put(pixels_1HWC: Tensor, result: Tensor, layout: Layout) -> None:
    """A whole decoded picture into its result, without the padding."""
    sink_into(result, layout).put(0, 0, pixels_1HWC[0, : layout.restored_height, : layout.restored_width])


def _decode_tile(vae: VAE, channels: int, down: int) -> int:
    """The largest tile, px, whose decode takes at most half the free memory."""
    tile, free = LARGEST_DECODE_TILE, comfy.model_management.get_free_memory(vae.device)
    while tile > SMALLEST_TILE:
        if vae.memory_used_decode((1, channels, tile // down, tile // down), vae.vae_dtype) <= 0.5 * free:
            break
        tile //= 2
    return tile


def _backend(vae: VAE, config: AlloSR2Config | None = None) -> Backend:
    """The VAE's first stage as functions of one item, load it first: pixels in [-1, 1], raw latents.

    With a configuration, the latents that are encoded are scaled.
    """
    network = vae.first_stage_model
    scale, shift = (1.0, 0.0) if config is None else (config.latent_scale, config.latent_shift)

    def encode(x: Tensor) -> Tensor:
        if _is_local(vae):
            z = network.encode(x.to(vae.device, vae.vae_dtype)).to(vae.output_device).float()
        else:
            check = comfy.model_management.throw_exception_if_processing_interrupted
            z = host_kl.encode(vae, x.movedim(1, -1) * 0.5 + 0.5, check)
        return (z - shift) * scale

    def decode(z: Tensor) -> Tensor:
        return network.decode(z.to(vae.device, vae.vae_dtype)).to(vae.output_device).float()

    return Backend(
        encode=encode,
        velocity=_no_velocity,
        decode=decode,
        encoder_radius=network.encoder_radius if _is_local(vae) else None,
        decoder_radius=network.decoder_radius if _is_local(vae) else None,
    )


def _no_velocity(z: Tensor, t: Tensor) -> Tensor:
    raise AlloSR2Error("a VAE has no velocity")


def _is_local(vae: VAE) -> bool:
    """True for a first stage with a finite receptive field, which it then states."""
    return hasattr(vae.first_stage_model, "encoder_radius") and hasattr(vae.first_stage_model, "decoder_radius")


def _load(vae: VAE, memory: float) -> None:
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)
