"""How much of a photograph's detail a result has, and how much of what it has is the photograph's, band by band.

Distances in features weigh both together, and prefer a mesh to nothing. Here they are apart: energy that does not
correlate with the photograph is made up, and a bump of it between bands that have less is a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from allosr2_core.errors import AlloSR2Error

from .fidelity import luma

EDGES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Of the bands, cycles per pixel: from a period of 20 px to the finest that an axis holds."""
SIDE = 64
"""Smallest side, px: a band needs frequencies to be averaged over."""


@dataclass(frozen=True)
class BandSpectrum:
    """Of a result beside its reference, a value for each band between two `EDGES`."""

    energy: tuple[float, ...]
    """The result's energy over the reference's; 1: as loud as the photograph."""
    correlation: tuple[float, ...]
    """Of the two, -1 to 1; 1: the same waves in the same places."""


def band_spectrum(x_1CHW: Tensor, y_1CHW: Tensor) -> BandSpectrum:
    """Result and reference, [1, 3, H, W] in [0, 1], by their luma under a Hann window. AlloSR2Error below `SIDE`."""
    height, width = x_1CHW.shape[-2:]
    if x_1CHW.shape != y_1CHW.shape or x_1CHW.shape[0] != 1 or min(height, width) < SIDE:
        raise AlloSR2Error(
            f"expected two pictures of one size, [1, 3, H, W] with sides of at least {SIDE} px; got "
            f"{tuple(x_1CHW.shape)} and {tuple(y_1CHW.shape)}"
        )
    x, y = (_spectrum(picture) for picture in (x_1CHW, y_1CHW))
    rows, columns = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.fftfreq(width, dtype=torch.float64)
    frequency = torch.hypot(rows[:, None], columns[None])
    energy, correlation = [], []
    for low, high in zip(EDGES[:-1], EDGES[1:], strict=True):
        band = (frequency >= low) & (frequency < high)
        xx, yy = (float(z[band].abs().square().sum()) for z in (x, y))
        xy = float((x[band] * y[band].conj()).real.sum())
        energy.append(xx / max(yy, 1e-12))
        correlation.append(xy / max((xx * yy) ** 0.5, 1e-12))
    return BandSpectrum(tuple(energy), tuple(correlation))


def _spectrum(picture_1CHW: Tensor) -> Tensor:
    grey = luma(picture_1CHW.double())[0, 0]
    rows, columns = (torch.hann_window(side, dtype=torch.float64) for side in grey.shape)
    return torch.fft.fft2((grey - grey.mean()) * rows[:, None] * columns[None])
