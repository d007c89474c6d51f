"""Whole-picture encode and decode of the host's KL autoencoders (LDM, FLUX.1) in the memory there is.

Where the host's own pass fits the device it is made. Where it does not, the host would fall back to tiles, which shift
colours; here the same networks run in strips of rows with the statistics of the whole (`tiling/kl_strips.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch
from torch import Tensor

from ..allosr2_core.tiling.exact import Tick
from ..allosr2_core.tiling.kl_strips import can_stream, streamed_decode, streamed_encode
from .host_memory import with_less

if TYPE_CHECKING:
    from comfy.sd import VAE

PASS_SHARE, BUDGET_SHARE = 0.7, 0.4
"""Parts of the free memory: what the host's own pass may need, and what the feature maps of strips may take."""
SMALLEST_BUDGET = 2**24
"""Bytes; the last budget tried when the device runs out of memory."""


def decode(vae: VAE, latent_1Chw: Tensor, tick: Tick) -> Tensor:
    """Raw latents of one item -> pixels [1, H, W, 3] in 0..1 on the host's output device."""
    network, free = vae.first_stage_model, comfy.model_management.get_free_memory(vae.device)
    needed = vae.memory_used_decode(tuple(latent_1Chw.shape), vae.vae_dtype)
    if needed <= PASS_SHARE * free or not _streams(network, "decoder", "up"):
        return vae.decode(latent_1Chw)

    def attempt(budget: int) -> Tensor:
        z = latent_1Chw.to(vae.device, vae.vae_dtype)
        raw = network.post_quant_conv(z) if hasattr(network, "post_quant_conv") else z
        return streamed_decode(network.decoder, raw, budget, tick)

    pixels = _with_smaller_budgets(vae, attempt, free)
    return vae.process_output(pixels.to(vae.output_device).float()).movedim(1, -1)


def encode(vae: VAE, pixels_1HWC: Tensor, tick: Tick) -> Tensor:
    """Pixels of one item, [1, H, W, 3] in 0..1 with sides the VAE takes -> raw latents, the posterior's mean."""
    network, free = vae.first_stage_model, comfy.model_management.get_free_memory(vae.device)
    x = pixels_1HWC.movedim(-1, 1)
    needed = vae.memory_used_encode(tuple(x.shape), vae.vae_dtype)
    if needed <= PASS_SHARE * free or not _streams(network, "encoder", "down"):
        return vae.encode(pixels_1HWC)

    def attempt(budget: int) -> Tensor:
        moments = streamed_encode(network.encoder, vae.process_input(x).to(vae.device, vae.vae_dtype), budget, tick)
        if hasattr(network, "quant_conv"):
            moments = network.quant_conv(moments)
        return moments.chunk(2, dim=1)[0]

    return _with_smaller_budgets(vae, attempt, free).to(vae.output_device).float()


def _streams(network: Any, part: str, levels: str) -> bool:
    """Whether a part has the structure that can be run in strips; FLUX.2 normalises its latents besides."""
    return (
        getattr(network, "bn", None) is None and hasattr(network, part) and can_stream(getattr(network, part), levels)
    )


def _with_smaller_budgets(vae: VAE, attempt: Callable[[int], Tensor], free: float) -> Tensor:
    """attempt(budget) on the loaded VAE, again with half the budget each time the device runs out of memory."""
    budget = max(SMALLEST_BUDGET, int(BUDGET_SHARE * free))
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=budget, force_full_load=vae.disable_offload)
    with torch.inference_mode():
        return with_less(attempt, budget, SMALLEST_BUDGET)
