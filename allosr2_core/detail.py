"""Detail of the input that a restored picture lost, told from the noise it was rid of.

Where a result is hardly larger than its input, the input shows most of what the result can. A restoration that takes
the grain of a clean picture for noise then loses more than it gains. What it took away is the residual, the input less
the result at the input's size. Noise is alike all over a picture, detail is not: so the quiet parts of the residual
tell the noise, and the rest is given back by a local Wiener gain (the filter of Lee, 1980).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from .image.resample import resample

WINDOW = 9
"""Side, px of the input, of the surroundings whose variance is taken."""
QUIET = 0.25
"""The quantile of the local variances that stands for the noise's."""
UNCHANGED = (0.25 / 255.0) ** 2
"""Variance below which nothing was taken away: flat and hidden areas say nothing of the noise elsewhere."""
SAMPLES = 2**20
"""Local variances that the quantile is taken of, at most, evenly spread."""


def lost_detail(source_1hwC: Tensor, result_1HWC: Tensor) -> Tensor:
    """What is to be given back, [1, h, w, C] in -1..1, at the size of the input; the result is not smaller.

    gain = max(0, 1 - noise / variance), with the residual's local variance over all channels and its quiet quantile.
    """
    residual_1hwC = source_1hwC - resample(result_1HWC, *source_1hwC.shape[1:3])
    power_11hw = residual_1hwC.square().mean(dim=-1)[:, None]
    variance_11hw = functional.avg_pool2d(power_11hw, WINDOW, 1, WINDOW // 2, count_include_pad=False)
    changed_N = variance_11hw[variance_11hw > UNCHANGED]
    if changed_N.numel() == 0:
        return residual_1hwC
    noise = changed_N[:: -(-changed_N.numel() // SAMPLES)].quantile(QUIET)
    gain_11hw = (1.0 - noise / variance_11hw.clamp_min(UNCHANGED)).clamp_min(0.0)
    return residual_1hwC.mul_(gain_11hw.movedim(1, -1))
