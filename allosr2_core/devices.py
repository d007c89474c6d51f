"""Where the networks run. Pictures, latents, times and statistics stay in main memory; tiles go there and come back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .errors import AlloSR2Error

AUTO = "auto"
KINDS = ("cpu", "cuda", "mps", "xpu")
"""Kinds of device that may be asked for; ROCm calls its own "cuda"."""
CPU = torch.device("cpu")


def device_of(word: str, environment: Mapping[str, str] = os.environ) -> torch.device:
    """The device that a word stands for: "cpu", "cuda", "cuda:1", ...; "auto" is a CUDA device where there is one.

    Under a launcher (`torchrun`, `accelerate launch`) a word without a number takes the one of this process among those
    of its machine, in turns. Raises AlloSR2Error for unknown words and for devices that this machine or torch lacks.
    """
    if word == AUTO:
        return device_of("cuda", environment) if torch.cuda.is_available() else CPU
    try:
        device = torch.device(word)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in KINDS:
        raise AlloSR2Error(f"expected the device to be {AUTO} or one of {', '.join(KINDS)}; got {word!r}")
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", _local_number(environment) % torch.cuda.device_count())
    try:
        torch.empty(1, device=device).zero_()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no class for a missing device
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AlloSR2Error(f"expected a device that is there; {word} cannot be used: {reason}") from error
    return device


def on_device(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """A function of tensors that runs on a device, for tensors in main memory."""
    if device.type == "cpu":
        return function
    return lambda *tensors: function(*(tensor.to(device) for tensor in tensors)).to(CPU)


def _local_number(environment: Mapping[str, str]) -> int:
    text = environment.get("LOCAL_RANK", "0")
    return int(text) if text.isdecimal() else 0
