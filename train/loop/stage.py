"""What a training stage is: a module whose forward returns named loss terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..config_stages import OptimConfig
from .adversary import Adversary
from .preview import Preview
from .rng import BatchRandom
from .state import Averages


class Stage(nn.Module, ABC):
    """One training problem. Trained modules live in `trained`; all but these and the `adversary` is frozen."""

    name: ClassVar[str]
    seed_name: ClassVar[str]
    """Goes into the seeds of all that the stage draws. Never changed, so that a run draws the same in every version."""
    trained: nn.ModuleDict
    optim: OptimConfig
    adversary: Adversary | None
    """What is trained against it, if anything; its loss is one of the terms."""

    def __init__(self) -> None:
        super().__init__()
        self.adversary = None

    @abstractmethod
    def dataset(self, start: int) -> Dataset:
        """The run's remaining samples, from index `start`."""

    @abstractmethod
    def forward(self, batch: dict[str, Tensor], step: int, random: BatchRandom) -> dict[str, Tensor]:
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

    @cached_property
    def averages(self) -> Averages:
        """Of `trained`, from when they are first asked for: once it is filled, and where it is trained."""
        return Averages(self.trained, self.optim.ema)

    @property
    def device(self) -> torch.device:
        """Where the stage computes."""
        return next(self.trained.parameters()).device
