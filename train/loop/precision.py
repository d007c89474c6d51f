"""Where bf16 pays: processors without instructions for it emulate it, up to a hundred times slower than fp32.

And what a machine reaches on a large matrix product, which figures are compared with.
"""

from __future__ import annotations

import functools
import time

import torch

GEMM = 2048
"""Side of the matrices."""
GEMM_SECONDS = 1.0


@functools.cache
def bf16_is_native(device_type: str) -> bool:
    """Whether a kind of device ("cpu", "cuda") multiplies bf16 in hardware."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities() if device_type == "cpu" else {}
    return any(bool(there) for name, there in has.items() if name.endswith("bf16"))


def mixed_precision(setting: str, device_type: str) -> str:
    """accelerate's name for a configured precision; "auto" is "bf16" where that is native, else "no" (fp32)."""
    if setting != "auto":
        return setting
    return "bf16" if bf16_is_native(device_type) else "no"


def gemm_flops(dtype: torch.dtype) -> float:
    """FLOP/s of a GEMM x GEMM product, the best of those made in about a second: what this machine's CPU can do."""
    a, b = (torch.randn(GEMM, GEMM).to(dtype) for _ in range(2))
    best, started = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - started < GEMM_SECONDS:
        before = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - before)
    return 2 * GEMM**3 / best
