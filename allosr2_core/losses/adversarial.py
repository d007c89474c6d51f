"""A discriminator against the one-step results, and the charge for details that are artifacts.

The discriminator scores pictures position by position: above 0 for a photograph, below for a result. Both losses are
softplus, the non-saturating form (Goodfellow et al. 2014), as Real-ESRGAN trains with (Wang et al. 2021, section 3.3).
A discriminator asks for detail and not for its place, so it also asks for dots and stray lines. The artifact map of LDL
(Liang et al. 2022, "Details or Artifacts") tells them by comparison with the averaged network, which has fewer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .registry import SRStep, loss

Scores = Sequence[Tensor]
"""What a discriminator says about a batch: maps [B, 1, h, w], of one or several resolutions, all of equal weight."""
ARTIFACT_WINDOW = 7
"""Side of the window in which the residual's variance is taken, px."""
ARTIFACT_POWER = 0.2
"""Of the variance of a whole picture's residual, by which its artifact map is scaled."""


def adversarial(fake: Scores) -> dict[str, Tensor]:
    """{"adversarial": mean softplus(-score) of the results}: what the network that makes them is charged."""
    return {"adversarial": _mean([F.softplus(-score.float()) for score in fake])}


def discrimination(real: Scores, fake: Scores) -> dict[str, Tensor]:
    """{"discriminator": mean softplus(-score) of photographs + mean softplus(score) of results, and both mean scores}.

    The loss is 2 log 2 for a discriminator that cannot tell. "score_real" and "score_fake" are for the log.
    """
    loss = _mean([F.softplus(-score.float()) for score in real]) + _mean([F.softplus(score.float()) for score in fake])
    return {"discriminator": loss, "score_real": _mean(real).detach(), "score_fake": _mean(fake).detach()}


def _mean(maps: Scores) -> Tensor:
    return torch.stack([scores.float().mean() for scores in maps]).mean()


def gradient_ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Norm of one loss's gradient over that of all others': ||part|| / ||whole - part||, a scalar."""
    part, whole = part.float(), whole.float()
    return part.norm() / (whole - part).norm().clamp(min=1e-12)


def artifact_map(pixels: Tensor, averaged: Tensor, pixels_hr: Tensor) -> Tensor:
    """How much each pixel of a result is charged as an artifact: [B, 1, H, W], without gradients.

    pixels, averaged, pixels_hr: [B, 3, H, W] in [-1, 1], the result, that of the averaged network, and the photograph.
    The map is the residual's variance in windows of ARTIFACT_WINDOW px, times that over the picture to the power of
    ARTIFACT_POWER. It is 0 where the averaged network is further off. Source: Liang et al. 2022, section 3.3, on
    pictures in [0, 1]; the equations were not at hand, so the details are our reading.
    """
    with torch.no_grad():
        residual, averaged_residual = (
            (picture.float() - pixels_hr.float()).abs().sum(dim=1, keepdim=True).mul(0.5)
            for picture in (pixels, averaged)
        )
        whole = residual.var(dim=(1, 2, 3), keepdim=True) ** ARTIFACT_POWER
        return whole * _local_variance(residual) * (residual >= averaged_residual)


def artifacts(pixels: Tensor, averaged: Tensor, pixels_hr: Tensor) -> dict[str, Tensor]:
    """{"ldl": mean of |result - photograph|, for pictures in [0, 1], weighed by `artifact_map`}; shapes as there."""
    weight = artifact_map(pixels, averaged, pixels_hr)
    return {"ldl": (weight * (pixels.float() - pixels_hr.float())).abs().mean().mul(0.5)}


def _local_variance(x: Tensor) -> Tensor:
    """Variance in the window around each pixel, mirrored at the border, corrected for its size: [B, 1, H, W]."""
    side, count = ARTIFACT_WINDOW, ARTIFACT_WINDOW**2
    padded = F.pad(x - x.mean(dim=(2, 3), keepdim=True), (side // 2,) * 4, mode="reflect")
    mean, power = F.avg_pool2d(padded, side, stride=1), F.avg_pool2d(padded.square(), side, stride=1)
    return (power - mean.square()).clamp(min=0.0) * (count / (count - 1))


@loss("adversarial")
def _adversarial(step: SRStep) -> dict[str, Tensor]:
    return adversarial(step.scores()) if step.scores is not None else {}


@loss("ldl")
def _artifacts(step: SRStep) -> dict[str, Tensor]:
    return artifacts(step.pixels, step.averaged(), step.target)
