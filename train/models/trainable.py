"""A network and its trained version: a whole copy, or low-rank branches on the one frozen network.

The first suits networks of a few million parameters, the second a base of billions: the original costs nothing there,
it is the same network with its branches off.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from allosr2_core.adapters import lora
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.autoencoders import Autoencoder
from allosr2_core.networks.registry import VelocityNetwork

from ..config import AdapterConfig, Config
from ..data.crops import derive_seed
from .build import load_autoencoder, load_velocity


class Trainable(nn.Module):
    """`network` is what is trained; `original()` gives the network as it was.

    Args:
        network: frozen or not; with a rank it is changed in place.
        adapter: its rank; 0 trains a copy whole.
        targets: layers that get branches, as regular expressions on their names in `network.adapted`.
        seed: of the branches' random halves.
    """

    def __init__(
        self,
        network: VelocityNetwork | Autoencoder,
        adapter: AdapterConfig,
        targets: Sequence[str],
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self.branched = adapter.rank > 0
        network.requires_grad_(False)
        if self.branched:
            if not targets:
                raise AlloSR2Error("adapter: expected the layers to adapt for a rank above 0; got none")
            rng = torch.Generator().manual_seed(seed)
            lora.inject(network.adapted, targets, adapter.rank, adapter.alpha, generator=rng)
            self.network = network
        else:
            self.network, self.copy = copy.deepcopy(network).requires_grad_(True), network

    @contextmanager
    def original(self) -> Iterator[nn.Module]:
        """The network without what was trained; not for a pass that is differentiated."""
        if not self.branched:
            yield self.copy
            return
        with lora.scaled(self.network, 0.0):
            yield self.network

    def frozen(self) -> nn.Module:
        """The network as it was, to pass gradients through. AlloSR2Error where it is the trained one, with branches."""
        if self.branched:
            raise AlloSR2Error(
                "adapter.rank: expected 0, a network trained whole; with branches there is no frozen one"
            )
        return self.copy


BRANCHES = ("allosr2", "adapter")
"""Goes into the seed of the branches' random halves. Never changed, so that a run starts the same in every version."""


def trainable_networks(config: Config) -> tuple[Trainable, Trainable]:
    """The configured velocity network and autoencoder with what the SR stage trains of them, as it starts."""
    network = load_velocity(config)
    targets, seed = config.adapter.transformer, derive_seed(config.run.seed, *BRANCHES)
    return Trainable(network, config.adapter, targets, seed=seed), trainable_autoencoder(config)


def trainable_autoencoder(config: Config) -> Trainable:
    """The second of `trainable_networks` by itself; its encoder is what is trained."""
    autoencoder, seed = load_autoencoder(config), derive_seed(config.run.seed, *BRANCHES) + 1
    return Trainable(autoencoder, config.adapter, config.adapter.encoder, seed=seed)
