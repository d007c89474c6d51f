"""A picture at another size, made piece by piece: what a restored picture is reduced or enlarged with.

A resampled pixel is a weighted sum of pixels, so every piece of the source adds its share to the result, in any order,
and the source need never be in memory as a whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

SUPPORT = 2
"""Of the kernel, in samples to either side."""
A = -0.5
"""Keys' parameter (1981), as torch and Pillow take it where they antialias. On validation photographs at a factor of 2
the area mean and the triangle are softer (ST-LPIPS), Lanczos is further from the photograph (PSNR)."""
BLOCK = 256
"""Side, px, of the pieces `resample` cuts a stored picture into."""


class Placed:
    """A result of the size of its source: the pieces beside each other."""

    def __init__(self, result_HWC: Tensor) -> None:
        self.result_HWC = result_HWC

    def put(self, top: int, left: int, piece_hwC: Tensor) -> None:
        """One piece, its first pixel at (top, left)."""
        self.result_HWC[top : top + piece_hwC.shape[0], left : left + piece_hwC.shape[1]] = piece_hwC  # from any device


class Resampled:
    """A result of another size: the sum of what the pieces add to it.

    Bicubic, antialiased where it reduces, edges normalised; not clamped.

    Args:
        result_HWC: float32, the memory of the result; set to zero here.
        height, width: of the source, px.
    """

    def __init__(self, result_HWC: Tensor, height: int, width: int) -> None:
        self.result_HWC = result_HWC.zero_()
        self.rows = _Axis(height, result_HWC.shape[0])
        self.columns = _Axis(width, result_HWC.shape[1])

    def put(self, top: int, left: int, piece_hwC: Tensor) -> None:
        """One piece of the source, its first pixel at (top, left); every pixel of the source once."""
        rows, weight_Rh = self.rows.share(top, top + piece_hwC.shape[0])
        columns, weight_Cw = self.columns.share(left, left + piece_hwC.shape[1])
        piece_hwC = piece_hwC.to(self.result_HWC.device)
        across_hCc = torch.einsum("Cw,hwc->hCc", weight_Cw.to(piece_hwC.device), piece_hwC)
        self.result_HWC[rows, columns] += torch.einsum("Rh,hCc->RCc", weight_Rh.to(piece_hwC.device), across_hCc)


def resample(image_BHWC: Tensor, height: int, width: int) -> Tensor:
    """Pictures at height x width px, clamped to 0..1, float32; at their own size they come back as they are."""
    batch, old_height, old_width, channels = image_BHWC.shape
    if (old_height, old_width) == (height, width):
        return image_BHWC
    result_BHWC = torch.empty(batch, height, width, channels, device=image_BHWC.device)
    for source_HWC, result_HWC in zip(image_BHWC, result_BHWC, strict=True):
        sink = Resampled(result_HWC, old_height, old_width)
        for top in range(0, old_height, BLOCK):
            for left in range(0, old_width, BLOCK):
                sink.put(top, left, source_HWC[top : top + BLOCK, left : left + BLOCK].float())
    return result_BHWC.clamp_(0.0, 1.0)


class _Axis:
    """Weights along one axis of `old` samples resampled to `new`."""

    def __init__(self, old: int, new: int) -> None:
        self.old, self.new = old, new
        self.stretch = max(1.0, old / new)  # of the kernel: reducing, it covers as many samples as it replaces
        self.reach = SUPPORT * self.stretch
        taps = torch.arange(int(2 * self.reach) + 2)
        first_n1 = (self._position(torch.arange(new)) - self.reach).floor()[:, None]
        inside = (first_n1 + taps >= 0) & (first_n1 + taps < old)
        self.total_n = (self._kernel(first_n1 + taps, torch.arange(new)) * inside).sum(dim=1)

    def share(self, start: int, stop: int) -> tuple[slice, Tensor]:
        """Which results the samples start..stop have a share in, and their weights [results, samples]."""
        lowest = (start - self.reach + 0.5) * self.new / self.old - 0.5
        highest = (stop - 1 + self.reach + 0.5) * self.new / self.old - 0.5
        results = slice(max(0, int(lowest)), min(self.new, int(highest) + 2))
        target = torch.arange(results.start, results.stop)
        weight = self._kernel(torch.arange(start, stop).double()[None], target) / self.total_n[target, None]
        return results, weight.float()

    def _position(self, target: Tensor) -> Tensor:
        """Where results lie among the samples: pixel centres at halves."""
        return (target.double() + 0.5) * (self.old / self.new) - 0.5

    def _kernel(self, sample: Tensor, target: Tensor) -> Tensor:
        x = ((sample - self._position(target)[:, None]) / self.stretch).abs()
        near = ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
        far = A * (((x - 5.0) * x + 8.0) * x - 4.0)
        return torch.where(x <= 1.0, near, torch.where(x < SUPPORT, far, 0.0))
