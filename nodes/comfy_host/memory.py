"""Memory of the device: how much is free, a VAE loaded with room to work, the same again with less at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import comfy.model_management

if TYPE_CHECKING:
    from comfy.sd import VAE

Result = TypeVar("Result")


def free_memory(vae: VAE) -> float:
    """Bytes that are free on the VAE's device."""
    return comfy.model_management.get_free_memory(vae.device)


def load_vae(vae: VAE, memory: float) -> None:
    """Bring the VAE with its patches to its device, with so many bytes left beside it."""
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)


def retry_on_oom(attempt: Callable[[int], Result], size: int, smallest: int) -> Result:
    """attempt(size), again with half the size each time the device runs out of memory, down to the smallest.

    For sizes (of tiles, of budgets) that change the memory needed and not the result.
    """
    while True:
        try:
            return attempt(size)
        except comfy.model_management.InterruptProcessingException:
            raise  # where the host has no out-of-memory class of its own, OOM_EXCEPTION is Exception
        except comfy.model_management.OOM_EXCEPTION:
            if size <= smallest:
                raise
        size = max(smallest, size // 2)  # outside the handler, so that the failed attempt's tensors are freed
        comfy.model_management.soft_empty_cache()
