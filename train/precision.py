"""Where bf16 pays: processors without instructions for it emulate it, up to a hundred times slower than fp32."""

from __future__ import annotations

import functools

import torch


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
