"""What the tests of low-rank branches and weight differences share: a small network, and changed weights."""

import copy

import torch
from torch import Tensor, nn

from allosr2_core.adapters.lora import BRANCH, LoRABranch

PREFIX = "diffusion_model."
ALL = ["conv", "wide", "linear"]
"""The layers of `Small` that can have a branch."""


class Small(nn.Module):
    """One of everything an adapter can meet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode="reflect")
        self.norm = nn.GroupNorm(2, 8)
        self.wide = nn.Conv2d(8, 8, (1, 5), dilation=(1, 2), padding=(0, 4), bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.linear = nn.Linear(8, 5)
        self.gain = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        h = self.grouped(self.wide(self.norm(self.conv(x))))
        return self.linear(h.mean((2, 3))) * self.gain


def branches(model: nn.Module) -> dict[str, LoRABranch]:
    """The branches in a network by layer name."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, LoRABranch)}
    return {name.removesuffix(f".{BRANCH}"): branch for name, branch in found.items()}


def fill(model: nn.Module, seed: int = 2) -> None:
    generator = torch.Generator().manual_seed(seed)
    for branch in branches(model).values():
        nn.init.normal_(branch.up.weight, std=0.3, generator=generator)
        nn.init.normal_(branch.down.weight, std=0.3, generator=generator)


def states_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def tuned_from(prior: nn.Module, size: float = 0.01) -> nn.Module:
    tuned = copy.deepcopy(prior)
    generator = torch.Generator().manual_seed(8)
    for parameter in tuned.parameters():
        parameter.data.mul_(1 + size * torch.randn(parameter.shape, generator=generator))
    return tuned
