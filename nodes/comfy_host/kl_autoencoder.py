"""Whole-picture encode and decode of the host's KL autoencoders (LDM, FLUX.1) in the memory there is.

Where the host's own pass fits the device it is made. Where it does not, the host would fall back to tiles, which shift
colours; here the same networks run in strips of rows with the statistics of the whole (`tiling/kl_strips.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...allosr2_core.tiling.exact import Tick
from ...allosr2_core.tiling.kl_strips import can_stream, streamed_decode, streamed_encode
from .memory import free_memory, load_vae, retry_on_oom

if TYPE_CHECKING:
    from comfy.sd import VAE

PASS_SHARE, BUDGET_SHARE = 0.7, 0.4
"""Parts of the free memory: what the host's own pass may need, and what the feature maps of strips may take."""
SMALLEST_BUDGET = 2**24
"""Bytes; the last budget tried when the device runs out of memory."""


def decode(vae: VAE, latent_1Chw: Tensor, tick: Tick) -> Tensor:
    """Raw latents of one item -> pixels [1, H, W, 3] in 0..1 on the host's output device."""
    parts, free = _parts(vae), free_memory(vae)
    needed = vae.memory_used_decode(tuple(latent_1Chw.shape), vae.vae_dtype)
    if needed <= PASS_SHARE * free or not _streams(parts, "decoder", "up"):
        return vae.decode(latent_1Chw).float()
    before = parts.get("post_quant_conv", nn.Identity())  # LDM's autoencoders have it, FLUX.1's do not

    def attempt(budget: int) -> Tensor:
        return streamed_decode(parts["decoder"], before(latent_1Chw.to(vae.device, vae.vae_dtype)), budget, tick)

    pixels = _with_smaller_budgets(vae, attempt, free)
    return vae.process_output(pixels.to(vae.output_device).float()).movedim(1, -1)


def encode(vae: VAE, pixels_1HWC: Tensor, tick: Tick) -> Tensor:
    """Pixels of one item, [1, H, W, 3] in 0..1 with sides the VAE takes -> raw latents, the posterior's mean."""
    parts, free = _parts(vae), free_memory(vae)
    x = pixels_1HWC.movedim(-1, 1)
    needed = vae.memory_used_encode(tuple(x.shape), vae.vae_dtype)
    if needed <= PASS_SHARE * free or not _streams(parts, "encoder", "down"):
        return vae.encode(pixels_1HWC).float()
    after = parts.get("quant_conv", nn.Identity())

    def attempt(budget: int) -> Tensor:
        given = vae.process_input(x).to(vae.device, vae.vae_dtype)
        return after(streamed_encode(parts["encoder"], given, budget, tick)).chunk(2, dim=1)[0]

    return _with_smaller_budgets(vae, attempt, free).to(vae.output_device).float()


def _parts(vae: VAE) -> dict[str, nn.Module]:
    """The networks a VAE is made of, by name; the host has no other description of them."""
    return dict(vae.first_stage_model.named_children())


def _streams(parts: dict[str, nn.Module], part: str, levels: str) -> bool:
    """Whether a part has the structure that can be run in strips; FLUX.2 normalises its latents (`bn`) besides."""
    return "bn" not in parts and part in parts and can_stream(parts[part], levels)


def _with_smaller_budgets(vae: VAE, attempt: Callable[[int], Tensor], free: float) -> Tensor:
    """attempt(budget) on the loaded VAE, again with half the budget each time the device runs out of memory."""
    budget = max(SMALLEST_BUDGET, int(BUDGET_SHARE * free))
    load_vae(vae, budget)
    with torch.inference_mode():
        return retry_on_oom(attempt, budget, SMALLEST_BUDGET)
