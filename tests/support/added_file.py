"""A file as if it lay in a folder of the library, and toys to put there."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from allosr2_core.bases.registry import BASES, FAMILIES
from allosr2_core.losses.registry import LOSSES
from allosr2_core.networks.autoencoders import AUTOENCODERS
from allosr2_core.networks.registry import NETWORKS

REGISTRIES: tuple[dict[str, Any], ...] = (NETWORKS, AUTOENCODERS, FAMILIES, BASES, LOSSES)

TOY_NETWORK = '''
"""Two convolutions on z and t."""
from dataclasses import dataclass
import torch
from torch import nn
from ..dataclass_reader import read_dataclass
from .registry import VelocityNetwork, network

@dataclass(frozen=True)
class ToyParams:
    latent_channels: int
    width: int
    stride = 2
    radius = 2

    @classmethod
    def read(cls, spec, where):
        return read_dataclass(cls, spec, where)

@network("toy", ToyParams)
class Toy(VelocityNetwork):
    def __init__(self, params):
        super().__init__()
        first = nn.Conv2d(params.latent_channels + 1, params.width, 3, padding=1)
        self.layers = nn.Sequential(first, nn.SiLU(), nn.Conv2d(params.width, params.latent_channels, 3, padding=1))

    def forward(self, z, t, cond=None):
        time = t.reshape(-1, 1, 1, 1).expand(len(z), 1, *z.shape[2:])
        return self.layers(torch.cat([z, time], dim=1))
'''
TOY_LOSS = '''
"""How far the mean colour is off."""
from .registry import loss

@loss("toy")
def toy(step):
    return {"toy": (step.pixels - step.hr).mean(dim=(2, 3)).abs().mean()}
'''
TOY_BASE = '''
"""A family whose transformer is linear in every cell."""
from dataclasses import dataclass
import torch
from torch import nn
from ..dataclass_reader import read_dataclass
from ..networks.registry import VelocityNetwork, network
from .registry import Base, Family, register

@dataclass(frozen=True)
class ToyParams:
    latent_channels: int
    width: int
    stride = 2
    radius = None

    @classmethod
    def read(cls, spec, where):
        return read_dataclass(cls, spec, where)

class Transformer(nn.Module):
    def __init__(self, params):
        super().__init__()
        self.toy_in = nn.Linear(params.latent_channels, params.width)
        self.toy_gain = nn.Module()
        self.toy_gain.scale = nn.Parameter(torch.ones(params.width))
        self.toy_out = nn.Linear(params.width, params.latent_channels)

    def forward(self, z_BhwC, told_B1):
        return self.toy_out(self.toy_gain.scale * torch.tanh(self.toy_in(z_BhwC) + told_B1[:, None, None]))

@network("toy-base", ToyParams)
class ToyBase(VelocityNetwork):
    def __init__(self, params):
        super().__init__()
        self.transformer = Transformer(params)
        self.context, self.pooled = nn.Parameter(torch.zeros(1, 1, 3)), nn.Parameter(torch.zeros(1, 2))

    def forward(self, z, t, cond=None):
        told = t[:, None] + self.context.mean() + self.pooled.mean()
        return self.transformer(z.movedim(1, -1).to(self.dtype), told).movedim(-1, 1).to(z.dtype)

    @property
    def adapted(self):
        return self.transformer

    @property
    def null(self):
        return {"context": self.context, "pooled": self.pooled}

    def set_null(self, null, where):
        for name, old in self.null.items():
            setattr(self, name, nn.Parameter(null.get(name, torch.zeros(old.shape)).float()))

    def compute_in(self, dtype):
        self.dtype = dtype

register(
    "toy-base",
    Family(
        title="Toy",
        latent_channels=4,
        latent_downscale=2,
        latent_scale=0.4,
        latent_shift=0.1,
        token_cells=2,
        pooled=True,
        guidance=False,
        marks=("toy_in.weight", "toy_gain.scale"),
        spellings=(("toy_gain.scale", "toy_gain.weight"),),
        members={
            "toy-1": Base(
                title="Toy 1",
                network={"type": "toy-base", "latent_channels": 4, "width": 8},
                autoencoder={
                    "type": "kl",
                    "in_channels": 3,
                    "out_ch": 3,
                    "ch": 32,
                    "ch_mult": [1, 2],
                    "num_res_blocks": 1,
                    "z_channels": 4,
                    "scale_factor": 0.4,
                    "shift_factor": 0.1,
                },
                license="CC0-1.0",
            )
        },
    ),
)
'''


@contextmanager
def added_file(package: str, folder: Path, source: str) -> Iterator[ModuleType]:
    """The module `toy` of a package, from a file in `folder`; what it registers is forgotten at the end."""
    before = [dict(registry) for registry in REGISTRIES]
    path, name = folder / f"{package.rpartition('.')[2]}_toy.py", f"{package}.toy"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.modules.pop(name, None)
        for registry, old in zip(REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(old)
