"""What the SNR head learns beside the flow: the detail that its latent lacks, over the picture and locally."""

from __future__ import annotations

from torch import Tensor

from ..snr import head_loss
from .registry import SRStep, loss


@loss("snr_head")
def _snr_head(step: SRStep) -> dict[str, Tensor]:
    return head_loss(step.log_power, step.z_lr, step.z_hr)
