"""Where bf16 pays: processors without instructions for it emulate it, up to a hundred times slower than fp32.

And what a machine reaches on a large matrix product, which figures are compared with.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping

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


INSTRUCTIONS = {
    "AMX": ("amx_bf16",),
    "AVX512-BF16": ("avx512_bf16",),
    "AVX512": ("avx512_f",),
    "AVX2": ("avx2",),
    "SVE-BF16": ("sve_bf16", "arm_bf16"),
    "NEON": ("neon", "asimd"),
}
"""What multiplies matrices on a processor, the fastest first -> torch's names of it (`torch.cpu.get_capabilities`)."""


def instruction_set(has: Mapping[str, object] | None = None) -> str:
    """The fastest of `INSTRUCTIONS` that this processor, or one of these capabilities, has; else its architecture."""
    has = torch.cpu.get_capabilities() if has is None else has
    for name, flags in INSTRUCTIONS.items():
        if any(has.get(flag) for flag in flags):
            return name
    return str(has.get("architecture", "none known"))


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
