"""What a training stage is: a module whose forward returns named loss terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..config import OptimConfig
from .preview import Preview
from .rng import Draws


class Stage(nn.Module, ABC):
    """One training problem. Trained modules live in `trained`; everything else in the stage is frozen."""

    name: ClassVar[str]
    trained: nn.ModuleDict
    optim: OptimConfig

    @abstractmethod
    def dataset(self, start: int) -> Dataset:
        """The run's remaining samples, from index `start`."""

    @abstractmethod
    def forward(self, batch: dict[str, Tensor], step: int, draws: Draws) -> dict[str, Tensor]:
        """Named, unweighted loss terms; terms without a weight are logged only.

        Each is a scalar and, so that a batch can be shared between processes, a mean over samples.
        """

    @property
    @abstractmethod
    def weights(self) -> dict[str, float]:
        """Weight of each term that is optimised."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups; `lr_scale` multiplies the stage's learning rate."""
        return [{"params": [p for p in self.trained.parameters() if p.requires_grad], "lr_scale": 1.0}]

    @abstractmethod
    def preview(self) -> Preview:
        """How the stage does with the weights as they are."""

    def blocks_to_shard(self) -> Sequence[nn.Module]:
        """Modules whose frozen weights the processes of a run share, each called as a module; none by default."""
        return ()

    @property
    def device(self) -> torch.device:
        """Where the stage computes."""
        return next(self.trained.parameters()).device
