"""Penalties on the grid of patch edges that one-step results in patch latents tend to carry.

A picture has no reason to prefer one column phase over another; a decoder that paints patches does. The contrast of
the mean gradient between phases is what users see as a fine lattice, and what the metric measures. A network
can balance the phases and still paint one motif into patch after patch: the autocorrelation at the patch size shows it.

Each measure is relative to how busy a picture is. As penalties they are relative to the REFERENCE, and in powers, to
which grain adds the same everywhere: otherwise a grid is cheaper to hide under grain than to leave out, and networks
paint that grain (docs/research/training-notes.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fine_texture import fine_texture
from .registry import SRStep, loss

SEAM_KNEE = 0.15
"""Gradients count by their square up to about this, by their size above, so that no single edge outweighs the grid; 19
levels of 255 for pixels in [-1, 1]."""
GRADIENT_FLOOR = 0.001
"""Mean gradient, so counted, below which a picture counts as flat: that of gradients of 2 levels of 255."""


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, dim: int) -> Tensor:
        step = pixels.diff(dim=dim)
        size = step.square().add_(SEAM_KNEE**2).sqrt_()
        ctx.save_for_backward(step, size)
        ctx.dim = dim
        return (size - SEAM_KNEE).mean(dim=(1, 5 - dim))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (grad_BW,) = grad_outputs
        step, size = ctx.saved_tensors
        dim, extent = ctx.dim, step.shape[ctx.dim]
        share = (grad_BW / (step[0].numel() / extent))[:, None].unsqueeze(5 - dim)
        slope = (step / size).mul_(share)
        shape = list(step.shape)
        shape[dim] += 1
        result = step.new_empty(shape)
        result.narrow(dim, 0, 1).zero_()
        result.narrow(dim, 1, extent).copy_(slope)
        result.narrow(dim, 0, extent).sub_(slope)
        return result, None


def _gradient(pixels: Tensor, dim: int = 3) -> Tensor:
    """Mean of sqrt(gradient^2 + knee^2) - knee between each column (dim = 3) or row (2) and the next: -> [B, W - 1]."""
    return _Gradient.apply(pixels.contiguous(), dim)


def _contrast(gradient_BW: Tensor, period: int, reference_BW: Tensor) -> Tensor:
    """Variance of a gradient's phases over the squared mean of a reference's: -> [B]."""
    phases_BP, level_B = _phases(gradient_BW, period), _phases(reference_BW, period).mean(dim=1)
    return phases_BP.var(dim=1, unbiased=False) / level_B.clamp(min=GRADIENT_FLOOR).square()


def _phases(gradient_BW: Tensor, period: int) -> Tensor:
    """[B, W] -> its mean at each phase, over whole periods: [B, period]."""
    whole = gradient_BW.shape[-1] // period * period
    return gradient_BW[..., :whole].unflatten(1, (-1, period)).mean(dim=1)


def lattice_excess(pixels: Tensor, pixels_hr: Tensor, periods: Sequence[int]) -> dict[str, Tensor]:
    """{"lattice": what the result's phase contrasts have above its reference's}, summed over directions and periods.

    Both relative to the reference's gradients. A picture's excess x counts as log(1 + x): x for photographs, while a
    made picture that is flat but for a few edges, all of them on one phase, does not outweigh the batch.
    A coarse period also catches the edges of JPEG blocks that were left, at 8 px of the low-resolution picture.
    """
    gradients = [(_gradient(pixels, dim), _gradient(pixels_hr, dim)) for dim in (2, 3)]
    excess = [
        F.relu(_contrast(x, period, y) - _contrast(y, period, y)).log1p().mean()
        for x, y in gradients
        for period in periods
    ]
    return {"lattice": torch.stack(excess).sum()}


REPEAT_WINDOW = 32
"""Side of the windows that `patch_repeat` looks at, px: a motif shows in the grass, not in the picture as a whole."""
REPEAT_SIDE = 5
"""Of the mean that fine texture leaves out, px."""
REPEAT_FLOOR = 1e-5
"""Power below which fine texture counts as none: a standard deviation of 0.003 for pictures in [0, 1]."""


def patch_repeat(pixels: Tensor, period: int) -> Tensor:
    """How much the fine texture repeats (> 0) or alternates (< 0) from patch to patch, by windows: -> [B, h, w].

    Autocorrelation of the high-passed channels along the rows at a lag of `period`, minus the mean of its two
    neighbours, in half overlapping windows of REPEAT_WINDOW px, relative to their power. pixels: [B, C, H, W] in
    [0, 1], more than period + 1 px wide. About 0 for a photograph; transpose for the other axis.
    """
    fine = _fine(pixels)
    return _repeating(fine, period, dim=3) / _power(fine, period, dim=3)


def _fine(pixels: Tensor) -> Tensor:
    return fine_texture(pixels.float(), REPEAT_SIDE).contiguous()


class _Repeating(torch.autograd.Function):
    """One product instead of one for each lag: what texture is multiplied with is a sum of shifted textures."""

    @staticmethod
    def forward(ctx: Any, fine: Tensor, period: int, dim: int) -> Tensor:
        here, before, at, after = (_shifted(fine, lag, period, dim) for lag in (0, period - 1, period, period + 1))
        contrast = torch.add(before, after).mul_(-0.5).add_(at)
        ctx.save_for_backward(fine, contrast)
        ctx.period, ctx.dim = period, dim
        return _windows((here * contrast).mean(dim=1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (grad,) = grad_outputs
        fine, contrast = ctx.saved_tensors
        period, dim = ctx.period, ctx.dim
        share = _from_windows(grad / fine.shape[1], contrast.shape[2:])[:, None]
        result = torch.zeros_like(fine)
        torch.mul(contrast, share, out=_shifted(result, 0, period, dim))
        along = _shifted(fine, 0, period, dim) * share
        _shifted(result, period, period, dim).add_(along)
        for lag in (period - 1, period + 1):
            _shifted(result, lag, period, dim).sub_(along, alpha=0.5)
        return result, None, None


def _repeating(fine: Tensor, period: int, dim: int) -> Tensor:
    """The autocorrelation of fine texture at a lag of `period` along `dim`, less its neighbours' mean: -> [B, h, w]."""
    return _Repeating.apply(fine, period, dim)


def _power(fine: Tensor, period: int, dim: int) -> Tensor:
    """The power of fine texture in the windows of `_repeating`, with a floor: -> [B, h, w]."""
    return _windows(_shifted(fine, 0, period, dim).square().mean(dim=1)) + REPEAT_FLOOR


def _shifted(fine: Tensor, lag: int, period: int, dim: int) -> Tensor:
    """What lies `lag` px further along `dim`, in what the longest lag leaves: a view."""
    return fine.narrow(dim, lag, fine.shape[dim] - period - 1)


def _windows(products_BHW: Tensor) -> Tensor:
    """Means over half overlapping windows."""
    window = min(REPEAT_WINDOW, *products_BHW.shape[1:])
    return F.avg_pool2d(products_BHW[:, None], window, stride=max(1, window // 2))[:, 0]


def _from_windows(grad: Tensor, size: Sequence[int]) -> Tensor:
    """The adjoint of `_windows` on maps of a size."""
    with torch.enable_grad():
        products = torch.zeros(grad.shape[0], *size, dtype=grad.dtype, device=grad.device, requires_grad=True)
        return torch.autograd.grad(_windows(products), products, grad)[0]


def repeat_excess(pixels: Tensor, pixels_hr: Tensor, period: int) -> dict[str, Tensor]:
    """{"repeat": mean |patch_repeat of the result - patch_repeat of its reference|, both directions}.

    Both relative to the reference's fine texture.
    pixels, pixels_hr: [B, C, H, W] in [-1, 1].
    """
    fine, fine_hr = (_fine(x.float().mul(0.5).add(0.5)) for x in (pixels, pixels_hr))
    across, down = (
        ((_repeating(fine, period, dim) - _repeating(fine_hr, period, dim)).abs() / _power(fine_hr, period, dim)).mean()
        for dim in (3, 2)
    )
    return {"repeat": across + down}


@loss("lattice")
def _lattice(step: SRStep) -> dict[str, Tensor]:
    return lattice_excess(step.pixels, step.target, step.grids)


@loss("repeat")
def _repeat(step: SRStep) -> dict[str, Tensor]:
    return repeat_excess(step.pixels, step.target, step.period)
