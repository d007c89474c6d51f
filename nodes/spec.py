"""What travels on an ALLOSR2 socket."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..allosr2_core.checkpoint.config import AlloSR2Config
from ..allosr2_core.layout import Layout
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

    def __str__(self) -> str:
        """What a node that shows anything shows of it, as Preview Any behind a bypassed node."""
        return f"the AlloSR2 checkpoint {self.name}"


def head_ticks(spec: Spec, layout: Layout, method: str) -> int:
    """How often estimating the time of one picture ticks; only the SNR head takes a while."""
    head = spec.snr_head if method == "predicted" else None
    return 0 if head is None else head.ticks(*layout.cells(spec.config))
