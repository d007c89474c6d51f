"""The SR stage's adversary: a discriminator that tells one-step results from photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allosr2_core.losses.adversarial import Scores, discrimination, gradient_ratio
from allosr2_core.losses.perceptual import random_window

from ..config_stages import AdversaryConfig
from ..loop.adversary import Adversary
from ..loop.rng import BatchRandom
from ..models.discriminator import Discriminator, Prior, build_discriminator

Both = tuple[Tensor, Tensor]
"""Of results, and of photographs."""


class SRAdversary(Adversary):
    """A discriminator of the configured kind, with fresh weights that `seed` decides.

    `root`: where the files of feature networks are. `prior` is asked where the discriminator looks through it.
    """

    network: Discriminator

    def __init__(self, config: AdversaryConfig, root: Path, prior: Callable[[], Prior], seed: int) -> None:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            network = build_discriminator(config.network, config.channels, root, prior)
        super().__init__(network, config.lr)
        self.crop = config.crop

    def show(self, pictures: Both, latents: Both, random: BatchRandom) -> Shown:
        """Results and photographs as the discriminator sees them: the same random square of both.

        pictures: [B, 3, H, W] in [-1, 1]; latents: theirs, [B, C, h, w].
        """
        random = random.apart("adversary")
        results, photographs = latents if self.network.latents else pictures
        side = self.crop * results.shape[-1] // pictures[0].shape[-1]
        seen, ratio = _measured(results)
        pair = random_window(seen, photographs, side, random.generator)
        seen, photographs = (x.contiguous(memory_format=torch.channels_last) for x in pair)
        return Shown(self, *self.network.views(seen, photographs, random), ratio)

    def update(self, factor: float) -> None:
        """One step, and the singular vectors that follow it."""
        super().update(factor)
        self.network.iterate()


@dataclass(frozen=True)
class Shown:
    """What the discriminator sees in a step (`Discriminator.views`)."""

    adversary: SRAdversary
    results: list[Tensor]
    """Differentiable in the pixels, or the latents."""
    photographs: list[Tensor]
    ratio: Tensor

    def scores(self) -> Scores:
        """Of the results, for what the SR stage is charged: no gradient reaches the discriminator."""
        return self.adversary.held(self.results)

    def terms(self) -> dict[str, Tensor]:
        """The discriminator's loss, no gradient of which reaches the SR stage, and what is logged of it.

        "adversarial_ratio" is the norm of the adversarial loss's gradient at what the discriminator sees over that of
        all other losses; the backward pass sets it.
        """
        both = [torch.cat([real, fake.detach()]) for real, fake in zip(self.photographs, self.results, strict=True)]
        pairs = [scores.chunk(2) for scores in self.adversary.network(both)]
        terms = discrimination([real for real, _ in pairs], [fake for _, fake in pairs])
        return terms | {"adversarial_ratio": self.ratio}


def _measured(results: Tensor) -> tuple[Tensor, Tensor]:
    """(results for the discriminator to see, a scalar that a backward pass sets to `gradient_ratio` at the results)."""
    seen, ratio = results.view_as(results), results.new_zeros(())
    part: list[Tensor] = []

    def keep(gradient: Tensor) -> None:
        part.append(gradient)

    def compare(gradient: Tensor) -> None:
        if part:
            ratio.copy_(gradient_ratio(part.pop(), gradient))

    if results.requires_grad:
        seen.register_hook(keep)
        results.register_hook(compare)
    return seen, ratio
