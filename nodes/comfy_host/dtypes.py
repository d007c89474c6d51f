"""In which type the networks of the embedded checkpoint compute: the host chooses from what they support.

On a CPU the host computes in fp32 whatever a model supports, because most CPUs are slow in anything else. Some
are up to four times as fast in bf16. There, where no option of the host names a type, the rule of the
command line holds (`allosr2_core/precision.py`).
"""

from __future__ import annotations

import re

import comfy.model_management as management
import torch
from comfy.cli_args import args

from ...allosr2_core import precision

SUPPORTED = [torch.bfloat16, torch.float16, torch.float32]
"""The host takes the first its device is good at. Against fp32, on the test photographs: bf16 64 dB, fp16 86 dB."""


def of_model(device: torch.device, parameters: int) -> tuple[torch.dtype, torch.dtype | None]:
    """The type of a MODEL's weights, and the one they are cast to for a product; None: they are used as they are."""
    automatic = precision.auto(device)
    if device.type == "cpu" and not _asked("unet"):
        return automatic, None
    stored = management.unet_dtype(model_params=parameters, supported_dtypes=SUPPORTED)
    if stored == automatic:  # the host casts whatever is not fp32 on a CPU
        return stored, None
    return stored, management.unet_manual_cast(stored, device, SUPPORTED)


def of_vae(device: torch.device) -> torch.dtype:
    """The type of a VAE; the host casts none."""
    if device.type == "cpu" and not _asked("vae"):
        return precision.auto(device)
    return management.vae_dtype(device, SUPPORTED)


def _asked(part: str) -> bool:
    """Whether an option of the host names a type for the "unet" or the "vae", or for everything."""
    option = re.compile(rf"force_fp\d+|(bf|fp)\d+\w*_{part}")
    return any(value for name, value in vars(args).items() if option.fullmatch(name))
