"""A host MODEL as a velocity of the core, and the one step on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.patcher_extension
import torch
from torch import Tensor

from ...allosr2_core import pipeline
from ...allosr2_core.flow import VelocityFn
from ...allosr2_core.layout import flow_plan
from ...allosr2_core.precision import name_of
from ...allosr2_core.tiling.exact import Tick
from .memory import retry_on_oom

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.model_patcher import ModelPatcher

    from ...allosr2_core.checkpoint.config import AlloSR2Config

SMALLEST_TILE = 64
"""px; the last size tried when the device runs out of memory."""
SAMPLER_PX = 8
"""px of picture that a latent cell stands for when a model is told width and height. The host's samplers say 8 whatever
the VAE is, and so does this; of the families that adapters are for, none reads the two."""


@dataclass(frozen=True)
class Prompt:
    """One entry of a CONDITIONING."""

    context: Tensor
    """Text tokens [1, T, D]."""
    extras: Mapping[str, Any]
    """What the host's models read beside it: "pooled_output" [1, V], "guidance", masks, reference latents."""


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
        return pipeline.step(evaluate, z_lr, t, config, **tiles, tick=tick)

    return attempt(tile) if tile else retry_on_oom(attempt, config.tile_size, SMALLEST_TILE)


def dtype_name(model: ModelPatcher) -> str:
    """The type a MODEL computes in, as "bf16"."""
    return name_of(model.model.manual_cast_dtype or model.model.get_dtype())


def _transformer_options(model: ModelPatcher) -> dict[str, Any]:
    """What the host's samplers pass with every call, so that other packs' patches find what they expect."""
    options = dict(model.model_options.get("transformer_options", {}))
    options["wrappers"] = comfy.patcher_extension.merge_nested_dicts(options.get("wrappers", {}), model.wrappers)
    return options | {"cond_or_uncond": [0]}


def _model_conds(base: BaseModel, prompt: Prompt, z: Tensor) -> dict[str, Any]:
    """The prompt as the keyword arguments of `apply_model`, by the model's own rules (masks, padding, adm)."""
    to_device = {k: v.to(z.device) if torch.is_tensor(v) else v for k, v in prompt.extras.items()}
    found = base.extra_conds(
        **to_device,
        cross_attn=prompt.context.to(z.device),
        noise=z,
        device=z.device,
        width=z.shape[3] * SAMPLER_PX,
        height=z.shape[2] * SAMPLER_PX,
        prompt_type="positive",
    )
    return {k: v.process_cond(batch_size=z.shape[0], device=z.device, area=None).cond for k, v in found.items()}
