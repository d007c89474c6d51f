"""What travels on an ALLOSR2 socket."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..allosr2_core.checkpoint.config import AlloSR2Config
from ..allosr2_core.snr import SNRHead


@dataclass(frozen=True)
class Spec:
    """A checkpoint without the weights that MODEL and VAE carry."""

    name: str
    """Name of the checkpoint in the loader's list."""
    config: AlloSR2Config
    snr_head: SNRHead | None
    """Predicts log rho from z_L; small beside the networks, kept on the CPU."""
    null: tuple[Tensor, Tensor] | None
    """Context [1, T, D] and pooled text [1, V] of the empty prompt of an adapter."""
