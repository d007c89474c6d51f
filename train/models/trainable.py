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
from allosr2_core.networks.registry import NullFlux

from ..config import AdapterConfig, Config
from ..data.crops import mix_seed
from .build import load_codec, load_velocity


class Tuned(nn.Module):
    """`network` is what is trained; `original()` gives the network as it was.

    Args:
        network: frozen or not; with a rank it is changed in place.
        adapter: its rank; 0 trains a copy whole.
        targets: layers that get branches, as regular expressions on their names in `part`.
        part: the part of `network` whose names the targets mean, e.g. the transformer in its wrapper.
        seed: of the branches' random halves.
    """

    def __init__(
        self,
        network: nn.Module,
        adapter: AdapterConfig,
        targets: Sequence[str],
        *,
        part: nn.Module | None = None,
        seed: int,
    ) -> None:
        super().__init__()
        self.branched = adapter.rank > 0
        network.requires_grad_(False)
        if self.branched:
            if not targets:
                raise AlloSR2Error("adapter: expected the layers to adapt for a rank above 0; got none")
            rng = torch.Generator().manual_seed(seed)
            lora.inject(part or network, targets, adapter.rank, adapter.alpha, generator=rng)
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


def tuned_networks(config: Config, stage: str) -> tuple[Tuned, Tuned]:
    """The configured velocity network and autoencoder with what `stage` trains of them, as it starts."""
    network = load_velocity(config)
    targets, seed = config.adapter.transformer, mix_seed(config.run.seed, stage, "adapter")
    return Tuned(network, config.adapter, targets, part=flux_of(network), seed=seed), tuned_codec(config, stage)


def tuned_codec(config: Config, stage: str) -> Tuned:
    """The second of `tuned_networks` by itself; its encoder is what is tuned."""
    codec, seed = load_codec(config), mix_seed(config.run.seed, stage, "adapter") + 1
    return Tuned(codec, config.adapter, config.adapter.encoder, part=codec.encoder, seed=seed)


def flux_of(network: nn.Module) -> nn.Module | None:
    """The transformer in its wrapper; None for other networks."""
    return network.velocity.flux if isinstance(network, NullFlux) else None
