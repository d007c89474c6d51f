"""Colours under transparency: what a picture hides is filled in from what it shows."""

import torch
from torch import Tensor
from torch.nn import functional


def fill_hidden(rgb_BHWC: Tensor, alpha_BHW: Tensor) -> Tensor:
    """The picture with the colours of its fully transparent pixels (alpha 0) filled in from the visible ones.

    Editors leave black, white or anything there, and a network, like any interpolation, would draw it into the visible
    edge as a fringe. Near an edge the fill is the edge's colour; further out it is the mean of ever wider
    surroundings (push-pull: averages weighted by alpha, level by level). Pixels with any alpha stay as they are; a
    picture without any stays as it is. float32.
    """
    rgb_BCHW, alpha_B1HW = rgb_BHWC.movedim(-1, 1).float(), alpha_BHW[:, None].float()
    hidden_B1HW = alpha_B1HW <= 0.0
    if not bool(hidden_B1HW.any()) or not bool((alpha_B1HW > 0.0).any()):
        return rgb_BHWC.float()
    filled_BCHW = _filled(rgb_BCHW * alpha_B1HW.clamp_min(0.0), alpha_B1HW.clamp_min(0.0))
    # A picture of a batch that shows nothing at all keeps what it has.
    return torch.where(hidden_B1HW & filled_BCHW.isfinite(), filled_BCHW, rgb_BCHW).movedim(1, -1).contiguous()


def _filled(sum_BCHW: Tensor, weight_B1HW: Tensor) -> Tensor:
    """Weighted sums and their weights -> means; where the weight is 0, the means of wider surroundings."""
    mean_BCHW = sum_BCHW / weight_B1HW  # NaN where nothing is known
    height, width = sum_BCHW.shape[2:]
    if height == width == 1:
        return mean_BCHW
    halve = {"kernel_size": (min(height, 2), min(width, 2)), "ceil_mode": True}
    wider_BChw = _filled(functional.avg_pool2d(sum_BCHW, **halve), functional.avg_pool2d(weight_B1HW, **halve))
    surroundings_BCHW = functional.interpolate(wider_BChw, size=(height, width), mode="nearest-exact")
    return torch.where(weight_B1HW > 0.0, mean_BCHW, surroundings_BCHW)
