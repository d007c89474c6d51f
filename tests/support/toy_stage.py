"""A stage of sixteen numbers, for tests of the training loop."""

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests.support.tiny_training import tiny_table
from train.config import Config
from train.config_file import from_table
from train.data.crops import derive_seed
from train.loop.preview import Preview
from train.loop.rng import BatchRandom
from train.loop.stage import Stage


class Numbers(Dataset):
    """Item i is a pure function of start + i."""

    def __init__(self, start: int, length: int) -> None:
        self.start, self.length = start, length

    def __len__(self) -> int:
        return self.length - self.start

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(derive_seed("numbers", self.start + item))
        return {"x": torch.randn(4, generator=rng)}


class Toy(Stage):
    """A linear map that learns to double its input; a second, slower module learns an offset."""

    name: ClassVar[str] = "toy"
    seed_name: ClassVar[str] = "toy"

    def __init__(self, config: Config, kill_at: int = -1, nan_at: int = -1) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.optim = config.stages.prior.optim
        self.trained = nn.ModuleDict({"map": nn.Linear(4, 4), "offset": nn.Linear(1, 4)})
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.kill_at, self.nan_at = kill_at, nan_at
        self.seen: list[Tensor] = []
        self.seeds: list[int] = []

    def dataset(self, start: int) -> Numbers:
        return Numbers(start, self.optim.steps * self.optim.batch)

    @property
    def weights(self) -> dict[str, float]:
        return {"fit": 1.0, "absent": 5.0}

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.trained["map"].parameters()), "lr_scale": 1.0},
            {"params": list(self.trained["offset"].parameters()), "lr_scale": 0.5},
        ]

    def forward(self, batch: dict[str, Tensor], step: int, draws: BatchRandom) -> dict[str, Tensor]:
        self.seen.append(batch["x"])
        self.seeds.append(draws.generator.initial_seed())
        if step == self.kill_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = batch["x"] + 0.1 * draws.noise_like(batch["x"])
        y = self.trained["map"](x) + self.trained["offset"](torch.ones(1))
        fit = (y - 2 * batch["x"]).square().mean()
        return {"fit": fit * (float("nan") if step == self.nan_at else 1.0), "unweighted": fit.detach() + 1}

    def preview(self) -> Preview:
        return Preview({"norm": float(self.trained["map"].weight.detach().norm())}, [[torch.zeros(1, 3, 8, 8)]])


def in_folder(root: Path, steps: int = 10) -> Config:
    return from_table(Config, tiny_table(root, steps), "x")


def state_of(config: Config) -> dict[str, Any]:
    return torch.load(Path(config.run.dir) / "toy" / "state.pt", weights_only=True)
