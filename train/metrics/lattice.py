"""lattice(p) and repeat(p): does a picture carry a grid of period p px, or one motif in patch after patch?

A network that paints in patches leaves seams between them; so do transposed convolutions and blockwise autoencoders.
Distances that tolerate small shifts (ST-LPIPS) hardly see such a grid, the eye sees it at once. The measure needs no
reference: neighbouring pixels of a photograph differ equally much at every phase of the grid, those of a tiled one
differ more at the seams.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.losses.lattice import fine_texture, patch_repeat

from .fidelity import luma

LATTICE_PERIODS = (4, 8, 16)
"""What is measured, px: the patches of the small decoder, and strides on top of them."""


def lattice(x_BCHW: Tensor, period: int) -> Tensor:
    """Strength of a grid of `period` px, (B,).

    Mean absolute luma difference between neighbours for each column (row) phase modulo `period`; then
    (max - min) / mean over the phases, the worse of the two axes. 0 for a flat picture, about 0.1 to 0.2 for
    photographs at 512 px, more than 1 for a visible grid. At least four periods must fit on each side.
    """
    height, width = x_BCHW.shape[2:]
    if period < 2 or min(height, width) < 4 * period + 1:
        raise AlloSR2Error(f"lattice({period}) needs a period >= 2 and four of them a side, got {height} x {width} px")
    y_BHW = luma(x_BCHW)[:, 0]
    across = _phase_contrast((y_BHW[:, :, 1:] - y_BHW[:, :, :-1]).abs().mean(dim=1), period)
    down = _phase_contrast((y_BHW[:, 1:, :] - y_BHW[:, :-1, :]).abs().mean(dim=2), period)
    return torch.maximum(across, down)


def _phase_contrast(gradient_BL: Tensor, period: int) -> Tensor:
    batch, length = gradient_BL.shape
    whole = length // period * period  # every phase counts the same number of seams
    phases_BP = gradient_BL[:, :whole].reshape(batch, whole // period, period).mean(dim=1)
    spread = phases_BP.amax(dim=1) - phases_BP.amin(dim=1)
    return spread / phases_BP.mean(dim=1).clamp_min(1e-9)


def repeat(x_BCHW: Tensor, period: int) -> Tensor:
    """Strength of a motif of `period` px that repeats or alternates in the fine texture, (B,).

    Mean over windows of |patch_repeat|, the worse of the two axes: about 0.03 for photographs, where it is the noise
    of windows of finite size; a weave that lattice(p) does not see has 0.08.
    """
    across, down = patch_repeat(x_BCHW, period), patch_repeat(x_BCHW.transpose(2, 3), period)
    return torch.maximum(across.abs().mean(dim=(1, 2)), down.abs().mean(dim=(1, 2)))


CHECKER_FLOOR = 1e-5
"""Power of fine texture below which a picture counts as flat."""
CHECKER_TAPS = (1.0, -4.0, 6.0, -4.0, 1.0)
"""Binomial high-pass: all of what alternates from pixel to pixel, next to nothing else."""


def checker_share(pixels: Tensor) -> Tensor:
    """How much of the fine texture of each picture is a checkerboard of single pixels: -> [B].

    Energy of the grey picture high-passed along rows and columns, over that of its difference to its 3 x 3 mean. About
    0.01 for a photograph. Networks that take every other pixel first are blind to what it is and see a tone.
    """
    grey_B1HW = pixels.float().mean(dim=1, keepdim=True)
    fine = fine_texture(grey_B1HW, 3)
    taps = grey_B1HW.new_tensor(CHECKER_TAPS) / 16.0
    checker = F.conv2d(F.conv2d(grey_B1HW, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return checker.square().flatten(1).mean(dim=1) / fine.square().flatten(1).mean(dim=1).clamp(min=CHECKER_FLOOR)
