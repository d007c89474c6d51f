"""Detail of the input that a restored picture lost, told from the noise it was rid of.

Where a result is hardly larger than its input, the input shows most of what the result can. A restoration that takes
the grain of a clean picture for noise then loses more than it gains. What it took away is the residual, the input less
the result at the input's size. Its local mean is no noise, which averages out, and is given back. Around that mean,
noise is taken to be alike all over a picture, and detail is not: the quiet parts of the residual tell the noise, and
the rest is given back by a local Wiener gain (the filter of Lee, 1980). Noise that grows with brightness is stronger in
bright parts than the quiet ones tell, and some of it comes back there.
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

    mean + gain (residual - mean), gain = max(0, 1 - noise / variance): the residual's local mean in each channel, its
    local variance over all of them, and the quiet quantile of that.
    """
    residual_1hwC = source_1hwC - resample(result_1HWC, *source_1hwC.shape[1:3])
    mean_1hwC = _local_mean(residual_1hwC)
    variance_1hw1 = _local_mean((residual_1hwC - mean_1hwC).square().mean(dim=-1, keepdim=True))
    changed_N = variance_1hw1[variance_1hw1 > UNCHANGED]
    if changed_N.numel() == 0:
        return residual_1hwC
    noise = changed_N[:: -(-changed_N.numel() // SAMPLES)].quantile(QUIET)
    gain_1hw1 = (1.0 - noise / variance_1hw1.clamp_min(UNCHANGED)).clamp_min(0.0)
    return residual_1hwC.sub_(mean_1hwC).mul_(gain_1hw1).add_(mean_1hwC)


def _local_mean(map_BHWC: Tensor) -> Tensor:
    """Over WINDOW x WINDOW px, as far as there are."""
    mean_BCHW = functional.avg_pool2d(map_BHWC.movedim(-1, 1), WINDOW, 1, WINDOW // 2, count_include_pad=False)
    return mean_BCHW.movedim(1, -1)
