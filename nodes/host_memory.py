"""What to do when the device runs out of memory: the same again with less at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import comfy.model_management

Result = TypeVar("Result")


def with_less(attempt: Callable[[int], Result], size: int, smallest: int) -> Result:
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
