"""The losses of the SR stage by name. A loss is one file here: pure functions, and the one that reads them off a step.

A configuration gives each a weight, 0 where it says nothing, and one of weight 0 is not computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..flow import Init, VelocityFn


class Random(Protocol):
    """Random numbers of a step's samples."""

    @property
    def generator(self) -> torch.Generator:
        """For numbers that all samples share."""
        ...

    def rand(self, samples: int, *shape: int) -> Tensor:
        """Uniform in [0, 1): [samples, *shape]."""
        ...

    def randn(self, samples: int, *shape: int) -> Tensor:
        """Standard normal: [samples, *shape]."""
        ...

    def noise_like(self, z: Tensor) -> Tensor:
        """Standard normal of the shape of z."""
        ...

    def common(self, count: int) -> Tensor:
        """Uniform in [0, 1), the same for every sample: [count]."""
        ...


@dataclass(frozen=True)
class SRStep:
    """One step of the SR stage, as its losses see it. Pictures are [B, 3, H, W] in [-1, 1], latents [B, C, h, w]."""

    pixels: Tensor
    """The one-step result, decoded."""
    target: Tensor
    """What it is compared with: `hr`, or that sharpened."""
    hr: Tensor
    z_hat: Tensor
    """The one-step result."""
    z_target: Tensor
    z_hr: Tensor
    z_lr: Tensor
    """What the step starts from, before `flow.start_state`."""
    log_power: Tensor
    """The SNR head's answer to `z_lr` (`snr.SNRHead.log_power`)."""
    t_paired_B: Tensor
    """Each pair's own t*. The path is straight only from there."""
    init: Init
    velocity: VelocityFn
    prior: VelocityFn
    """The untouched prior; for use without gradients."""
    decode: Callable[[Tensor], Tensor]
    averaged: Callable[[], Tensor]
    """The result of the averaged velocity network from the same start, decoded; without gradients."""
    scores: Callable[[], Sequence[Tensor]] | None
    """What the discriminator says about `pixels`, differentiable in these alone (`adversarial.Scores`)."""
    distance: Callable[[Tensor, Tensor], Tensor] | None
    """The perceptual distance whose turn it is: pictures in [0, 1] -> scalar or [B]."""
    perceptual_crop: int
    """Side of the square that it sees, px; 0 = all."""
    period: int
    """Of the grid that the decoder may paint, px."""
    grids: Sequence[int]
    """Periods of it and of the velocity network's levels, px."""
    atm_t: tuple[float, float]
    """Range of the times at which ATM compares."""
    random: Random

    def thinned(self, every: int) -> SRStep:
        """Every n-th sample: spread over the batch, so that every process of a run has its share."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{k: v[::every] for k, v in values.items() if isinstance(v, Tensor)})


@dataclass(frozen=True)
class Loss:
    """How a loss is computed, and when."""

    terms: Callable[[SRStep], dict[str, Tensor]]
    """Named scalars, each a mean over samples; all have the loss's weight."""
    turn: int | None
    """0: in even steps, 1: in odd ones, None: in all. Losses that evaluate the network again take turns."""
    thinned: bool
    """Whether it sees every n-th sample only."""


LOSSES: dict[str, Loss] = {}
"""By the names that configurations give weights to; filled by the files beside this one."""


def loss(
    name: str, *, turn: int | None = None, thinned: bool = False
) -> Callable[[Callable[[SRStep], dict[str, Tensor]]], Callable[[SRStep], dict[str, Tensor]]]:
    """Register a function of a step as the loss `name`; see `Loss`. ValueError where the name is taken."""

    def register(terms: Callable[[SRStep], dict[str, Tensor]]) -> Callable[[SRStep], dict[str, Tensor]]:
        if name in LOSSES:
            raise ValueError(f"expected a new name for a loss; {name!r} is taken")
        LOSSES[name] = Loss(terms, turn, thinned)
        return terms

    return register


def in_order(names: Sequence[str]) -> list[str]:
    """Losses in the order they are computed in: those of every step first, then those that take turns, as registered.

    The order matters to the random numbers they draw.
    """
    return sorted((name for name in LOSSES if name in names), key=lambda name: LOSSES[name].turn is not None)
