"""What a checkpoint says about itself besides its weights, and the contradictions it is refused for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from ..adapters.targets import check_targets
from ..bases.registry import FAMILIES, needs_host
from ..dataclass_reader import Range, check_fields
from ..errors import AlloSR2Error, shown
from ..flow import INITS, Init
from ..networks.autoencoders import autoencoder_params
from ..networks.registry import NETWORKS, network_params
from ..options import T_WORDS


@dataclass(frozen=True)
class AlloSR2Config:
    """Everything a pipeline must know about a checkpoint besides its weights. No field has a default."""

    base: str
    """What it was trained on: "allosr2-mini", or the base of an adapter such as "flux1-dev"."""
    network: Mapping[str, Any]
    """Velocity network: type and parameters, see `networks.build_network`; of types only the host can build, the
    type alone."""
    autoencoder: Mapping[str, Any]
    """Its type and parameters, see `autoencoders.autoencoder_params`; {"type": "host"} where only the host has it."""
    adapter: Mapping[str, Any]
    """Empty for standalone files; of adapters the adapted layers, see `adapter.check_targets`."""
    snr_head: Mapping[str, Any]
    """Parameters of the SNR head; empty when there is none."""
    init: Init
    """Starting point it was trained with: "aligned" or "raw"."""
    t_star: Annotated[float, Range(0, 1)]
    """The calibrated global t*."""
    t_min: Annotated[float, Range(0, 1)]
    t_max: Annotated[float, Range(0, 1)]
    """Range of t* it was trained on."""
    t_method: str
    """What to use when the user does not choose: "calibrated" or "predicted"."""
    scale: Annotated[int, Range(1, 16)]
    """Enlargement it was trained for."""
    trained_size: Annotated[int, Range(1, 65535)]
    """Side of a training crop, px."""
    tile_size: Annotated[int, Range(1, 65535)]
    """Side of a tile when the user does not choose, px."""
    latent_channels: Annotated[int, Range(1, 1024)]
    latent_downscale: Annotated[int, Range(1, 64)]
    """Pixels per latent cell."""
    latent_scale: Annotated[float, Range(1e-6, 1e6)]
    latent_shift: Annotated[float, Range(-1e6, 1e6)]
    """scaled latent = (raw - shift) * scale."""

    def __post_init__(self) -> None:
        problems = []
        if self.init not in INITS:
            problems.append(f"init must be one of {INITS}, got {shown(self.init)}")
        if self.t_method not in T_WORDS:
            problems.append(f"t_method must be one of {T_WORDS}, got {shown(self.t_method)}")
        for name in ("scale", "trained_size", "tile_size", "latent_channels", "latent_downscale"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                problems.append(f"{name} must be a positive integer, got {shown(value)}")
        for name in ("t_star", "t_min", "t_max", "latent_scale", "latent_shift"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                problems.append(f"{name} must be a finite number, got {shown(value)}")
        if not problems and not self.latent_scale > 0:
            problems.append(f"latent_scale must be positive, got {self.latent_scale!r}")
        if not isinstance(self.network.get("type"), str):
            problems.append(f"network: expected type to be a name, got {shown(self.network.get('type'))}")
        problems += check_targets(self.adapter) if self.adapter else []
        if not self.snr_head and (not self.adapter or self.t_method == "predicted"):
            problems.append("snr_head is empty: expected an adapter with t_method 'calibrated'")
        problems += self._contradictions() if not problems else []
        if not problems and not 0 < self.t_min <= self.t_star <= self.t_max < 1:
            problems.append(f"expected 0 < t_min <= t_star <= t_max < 1, got {self.t_min}, {self.t_star}, {self.t_max}")
        if problems:
            raise AlloSR2Error("checkpoint config: " + "; ".join(problems))
        check_fields(self)

    def _contradictions(self) -> list[str]:
        """Facts that the architectures state as well, and state otherwise."""
        parts = {"network": self.network, "snr_head": self.snr_head}
        found = [
            f"latent_channels is {self.latent_channels!r} here and {shown(part['latent_channels'])} in {name}"
            for name, part in parts.items()
            if part.get("latent_channels", self.latent_channels) != self.latent_channels
        ]
        family = FAMILIES.get(self.network.get("type", ""))
        if family is not None and not family.guidance and self.network.get("guidance") is not None:
            found.append(
                f"network has a guidance of {shown(self.network['guidance'])}, which {family.title} does not take"
            )
        facts = ("latent_channels", "latent_downscale", "latent_scale", "latent_shift")
        for name, value in zip(facts, self._autoencoder_facts(), strict=False):
            if getattr(self, name) != value:
                found.append(f"{name} is {getattr(self, name)!r} here and {value!r} in autoencoder")
        return found

    def _autoencoder_facts(self) -> tuple[float, ...]:
        """Channels and downscale of the autoencoder, and where it has its own (FLUX.1), latent scale and shift."""
        if self.only_host_autoencoder:
            family = FAMILIES.get(self.network.get("type", ""))
            if family is None:
                return ()
            return family.latent_channels, family.latent_downscale, family.latent_scale, family.latent_shift
        params = autoencoder_params(self.autoencoder)
        return params.latent_channels, params.downscale, *(params.latent_format or ())

    @property
    def only_host_network(self) -> bool:
        """True when the velocity network is one of a host's that the core cannot build."""
        return needs_host(self.network.get("type"))

    @property
    def only_host_autoencoder(self) -> bool:
        """True when the core cannot build the autoencoder."""
        return self.autoencoder.get("type") == "host"

    @property
    def is_local_codec(self) -> bool:
        """True when encoder and decoder see a few cells only, so that tiles can be exact."""
        if self.only_host_autoencoder:
            return False
        params = autoencoder_params(self.autoencoder)
        return params.encoder_radius is not None and params.decoder_radius is not None

    @property
    def is_local_flow(self) -> bool:
        """True when the velocity network sees a few cells only: it takes tiles of any size, not only the trained."""
        return self.network.get("type") in NETWORKS and network_params(self.network).radius is not None

    @property
    def patch_cells(self) -> int:
        """Latent cells along one side of what the velocity network sees as one: a U-Net's stride, a token."""
        if self.only_host_network:
            return FAMILIES[self.network["type"]].token_cells
        return network_params(self.network).stride

    def clamp_t(self, t: Tensor) -> Tensor:
        """t limited to the trained range."""
        return t.clamp(self.t_min, self.t_max)
