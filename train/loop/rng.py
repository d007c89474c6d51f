"""Random numbers of a training step: a function of (seed, step) and of the sample's place in the global batch.

However many processes or passes share a batch, sample i of it sees the same noise and the same times, on one kind of
device. Each draws the numbers of the whole batch, which costs next to nothing, and keeps the rows of its own samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.crops import derive_seed


@dataclass(frozen=True)
class BatchRandom:
    """One step's source of random numbers; the order of the calls matters, as with any generator."""

    generator: torch.Generator
    part: int = 0
    """Which part of the batch this is, from 0."""
    parts: int = 1
    """How many equal parts the batch is dealt into; part r holds its r-th block of rows."""

    @classmethod
    def seeded(cls, seed: int, part: int = 0, parts: int = 1) -> BatchRandom:
        """A source that gives the same numbers for the same seed."""
        return cls(torch.Generator().manual_seed(seed), part, parts)

    def apart(self, purpose: str) -> BatchRandom:
        """A source of its own for `purpose`, so that what is drawn here stays the same with and without it."""
        return BatchRandom.seeded(derive_seed(self.generator.initial_seed(), purpose), self.part, self.parts)

    def rand(self, samples: int, *shape: int) -> Tensor:
        """Uniform in [0, 1) for this part's `samples` samples: [samples, *shape]."""
        return self._own(torch.rand(samples * self.parts, *shape, generator=self.generator), samples)

    def randn(self, samples: int, *shape: int) -> Tensor:
        """Standard normal for this part's `samples` samples: [samples, *shape]."""
        return self._own(torch.randn(samples * self.parts, *shape, generator=self.generator), samples)

    def noise_like(self, z: Tensor) -> Tensor:
        """Standard normal of the shape, type and device of z, whose first dimension is samples.

        Drawn where z is, so that an accelerator does not wait for the processor.
        """
        rng = torch.Generator(z.device).manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
        whole = torch.randn(z.shape[0] * self.parts, *z.shape[1:], generator=rng, device=z.device)
        return self._own(whole, z.shape[0]).to(z)

    def common(self, count: int) -> Tensor:
        """`count` uniform numbers in [0, 1) that are the same for every sample."""
        return torch.rand(count, generator=self.generator)

    def _own(self, whole: Tensor, samples: int) -> Tensor:
        return whole[self.part * samples : (self.part + 1) * samples]
