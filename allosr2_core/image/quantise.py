"""Pixels 0..1 -> the integers a file stores."""

import numpy as np
import torch

from ..errors import AlloSR2Error


def quantised(
    rgb_HWC: torch.Tensor,
    alpha_HW: torch.Tensor | None,
    bits: int,
    must_be_grey: bool = False,
    one_channel: bool = False,
) -> np.ndarray:
    """(H, W, 3) and (H, W) in 0..1 -> (H, W, 1 grey | 2 grey and alpha | 3 | 4), uint8 or, for 16 bits, uint16.

    Rounded and clamped. Raises AlloSR2Error for other shapes, NaN, infinity, and colours in what must be grey.
    """
    if rgb_HWC.ndim != 3 or rgb_HWC.shape[-1] != 3 or rgb_HWC.numel() == 0:
        raise AlloSR2Error(f"expected pixels (H, W, 3), got {tuple(rgb_HWC.shape)}")
    if alpha_HW is not None and alpha_HW.shape != rgb_HWC.shape[:2]:
        raise AlloSR2Error(f"expected alpha of shape {tuple(rgb_HWC.shape[:2])}, got {tuple(alpha_HW.shape)}")
    values_HWC = _to_integers(rgb_HWC, bits)
    if must_be_grey and not (values_HWC == values_HWC[..., :1]).all():
        raise AlloSR2Error("expected equal channels for a grey file, got colours")
    if one_channel:
        values_HWC = values_HWC[..., :1]
    if alpha_HW is not None:
        values_HWC = np.concatenate((values_HWC, _to_integers(alpha_HW[..., None], bits)), axis=-1)
    return np.ascontiguousarray(values_HWC)


def _to_integers(values_HWC: torch.Tensor, bits: int) -> np.ndarray:
    values_HWC = values_HWC.detach().float().cpu()
    if not bool(torch.isfinite(values_HWC).all()):
        raise AlloSR2Error("expected finite pixels, got NaN or infinity")
    if bits == 8:
        return (values_HWC * 255.0).round().clamp(0, 255).to(torch.uint8).numpy()
    return (values_HWC * 65535.0).round().clamp(0, 65535).to(torch.int32).numpy().astype(np.uint16)
