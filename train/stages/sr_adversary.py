"""The SR stage's adversary: a discriminator that tells one-step results from photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allosr2_core.losses.adversarial import Scores, discrimination, gradient_ratio
from allosr2_core.losses.perceptual import MAX_SHIFT, random_window, shift

from ..config_stages import AdversaryConfig
from ..loop.adversary import Adversary
from ..loop.rng import BatchRandom
from ..models.discriminator import Discriminator, build_discriminator


class SRAdversary(Adversary):
    """A discriminator of the configured kind, with fresh weights that `seed` decides.

    `root`: where the files of feature networks are.
    """

    network: Discriminator

    def __init__(self, config: AdversaryConfig, root: Path, seed: int) -> None:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            network = build_discriminator(config.network, config.channels, root)
        super().__init__(network, config.lr)
        self.crop = config.crop

    def show(self, pixels: Tensor, hr: Tensor, random: BatchRandom) -> Shown:
        """Results and photographs, [B, 3, H, W] in [-1, 1], as the discriminator sees them: the same random square."""
        random = random.apart("adversary")
        seen, ratio = _measured(pixels)
        pair = random_window(seen, hr, self.crop, random.generator)
        if self.network.shifted:
            dy, dx = (float(offset) for offset in random.common(2) * MAX_SHIFT)
            pair = shift(pair[0], dy, dx), shift(pair[1], dy, dx)
        results, photographs = (self.network.views(x.contiguous(memory_format=torch.channels_last)) for x in pair)
        return Shown(self, results, photographs, ratio)

    def update(self, factor: float) -> None:
        """One step, and the singular vectors that follow it."""
        super().update(factor)
        self.network.iterate()


@dataclass(frozen=True)
class Shown:
    """What the discriminator sees in a step (`Discriminator.views`)."""

    adversary: SRAdversary
    results: list[Tensor]
    """Differentiable in the pixels."""
    photographs: list[Tensor]
    ratio: Tensor

    def scores(self) -> Scores:
        """Of the results, for what the SR stage is charged: no gradient reaches the discriminator."""
        return self.adversary.held(self.results)

    def terms(self) -> dict[str, Tensor]:
        """The discriminator's loss, no gradient of which reaches the SR stage, and what is logged of it.

        "adversarial_ratio" is the norm of the adversarial loss's gradient at the pixels over that of all other losses;
        the backward pass sets it.
        """
        both = [torch.cat([real, fake.detach()]) for real, fake in zip(self.photographs, self.results, strict=True)]
        pairs = [scores.chunk(2) for scores in self.adversary.network(both)]
        terms = discrimination([real for real, _ in pairs], [fake for _, fake in pairs])
        return terms | {"adversarial_ratio": self.ratio}


def _measured(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(pixels for the discriminator to see, a scalar that a backward pass sets to `gradient_ratio` at the pixels)."""
    seen, ratio = pixels.view_as(pixels), pixels.new_zeros(())
    part: list[Tensor] = []

    def keep(gradient: Tensor) -> None:
        part.append(gradient)

    def compare(gradient: Tensor) -> None:
        if part:
            ratio.copy_(gradient_ratio(part.pop(), gradient))

    if pixels.requires_grad:
        seen.register_hook(keep)
        pixels.register_hook(compare)
    return seen, ratio
