"""Which type the networks compute in: the one rule of the command line, of measurements and of the nodes.

Pixels, the latents handed from part to part, times, colour and statistics are float32 whatever it says. So are, in the
embedded networks, the linear patch basis, which carries the picture, and what depends on the time alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By the names that options give them."""
AUTO = "auto"
WORDS = (AUTO, *DTYPES)
"""What `--dtype` takes."""


def auto(device: torch.device) -> torch.dtype:
    """The fastest type that gives the same picture: bf16 where there are units for it, fp16 on other CUDA devices.

    Flags decide on a CPU (`has_bf16_units`) and no timed product, so that one machine always gives one picture. Devices
    other than CPU and CUDA have not been measured: fp32.
    """
    if device.type == "cpu":
        return torch.bfloat16 if has_bf16_units(cpu_flags()) else torch.float32
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float32


def has_bf16_units(flags: Mapping[str, object]) -> bool:
    """Whether a CPU is faster in bf16 than in fp32, by its flags; one that tells none counts as without.

    Those with AMX are (the embedded U-Net takes a quarter of the time), and AMD's with AVX512-BF16 (six tenths, on
    Zen 5). AVX512-BF16 alone does not count: on Intel's, with oneDNN kept from AMX, bf16 takes 1.6 times as long.
    """
    amd = str(flags.get("cpu_name", "")).startswith("AMD")
    return bool(flags.get("amx_bf16", False) or (amd and flags.get("avx512_bf16", False)))


def cpu_flags() -> dict[str, object]:
    """What torch says the CPU can do; {} where it does not tell (before `torch.cpu.get_capabilities`)."""
    tell = getattr(torch.cpu, "get_capabilities", dict)
    return dict(tell())


def dtype_of(word: str, device: torch.device) -> torch.dtype:
    """The type that one of WORDS stands for on a device."""
    return auto(device) if word == AUTO else DTYPES[word]


def name_of(dtype: torch.dtype) -> str:
    """Its name among DTYPES, or torch's for another."""
    return next((name for name, known in DTYPES.items() if known == dtype), str(dtype).removeprefix("torch."))


def computed_in(*networks: nn.Module) -> torch.dtype:
    """The type that networks compute in: the smallest of their weights'; what stays fp32 beside it does not count."""
    found = {weight.dtype for network in networks for weight in network.parameters()}
    return min(found, key=lambda dtype: dtype.itemsize, default=torch.float32)


def convert_convolutions(network: nn.Module, dtype: torch.dtype, keep: Collection[nn.Module] = ()) -> None:
    """Convert the weights of all convolutions but those to `keep`, in place; linear layers stay as they are."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer not in keep:
            layer.to(dtype)
