"""What training an adapter takes, worked out on the meta device: nothing is allocated, no file of the base is needed.

python -m train memory --config train/configs/flux1_dev.toml

Per GPU: frozen weights; weights, gradients, two moments and the average of what is trained, all fp32; and what the
backward pass keeps of one micro batch, from autograd's own saved tensors. Attention is counted in its plain form (meta
tensors have no fused kernels), so activations are an upper bound. Feature networks (tens of MB) and the allocator's
slack come on top.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from allosr2_core.adapters import lora
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.autoencoders import Autoencoder
from allosr2_core.networks.registry import VelocityNetwork

from ..arguments import counting
from ..config import Config
from ..config_file import load_config
from ..models.build import DTYPES, build_autoencoder, build_velocity, latent_channels

BYTES_TRAINED = 4 + 4 + 8 + 4
"""fp32 weight, gradient, AdamW's two moments, moving average."""
GB = 1e9


class SavedBytes:
    """Counts what autograd keeps for the backward pass while it is entered, besides parameters.

    units: the parts that gradient checkpointing computes again as a whole.
    """

    def __init__(self, *modules: nn.Module, units: Sequence[nn.Module] = ()) -> None:
        self.units = units
        self.skip = {p.untyped_storage()._cdata for m in modules for p in m.parameters()}
        self.held: dict[int, int] = {}
        self.keep: list[object] = []  # a freed storage's address would be given out again
        self.largest_unit = 0
        """Most that one checkpointed unit keeps inside."""

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.skip:
            self.held[storage._cdata] = storage.nbytes()
            self.keep.append(storage)
        return tensor

    @property
    def total(self) -> int:
        return sum(self.held.values())

    def _before(self, unit: nn.Module, args: tuple[object, ...]) -> None:
        for value in args:
            if isinstance(value, Tensor) and value.requires_grad:
                self.note(value)  # checkpointing keeps inputs outside autograd's saved tensors
        self.started = self.total

    def _after(self, unit: nn.Module, args: tuple[object, ...], output: object) -> None:
        self.largest_unit = max(self.largest_unit, self.total - self.started)

    def __enter__(self) -> SavedBytes:
        self.hooks = [unit.register_forward_pre_hook(self._before) for unit in self.units]
        self.hooks += [unit.register_forward_hook(self._after) for unit in self.units]
        self.saving = saved_tensors_hooks(self.note, lambda x: x)
        self.saving.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.saving.__exit__(*exc)
        for hook in self.hooks:
            hook.remove()


@dataclass(frozen=True)
class Need:
    """Bytes."""

    transformer: int
    """Frozen weights of the transformer."""
    autoencoder: int
    """Frozen weights of the autoencoder."""
    adapter: int
    """Everything about the trained parameters."""
    activations: int
    """Kept of one micro batch, with the largest block computed again."""
    block: int
    """Largest block of the transformer, which FSDP gathers; two are there at once."""


def measure(config: Config, micro: int, *, checkpointing: bool) -> Need:
    """What one process needs for a micro batch of that many samples."""
    with torch.device("meta"):
        network, autoencoder = build_velocity(config), build_autoencoder(config)
    if not network.blocks or not autoencoder.blocks or not config.adapter.rank:
        raise AlloSR2Error(
            "expected the configuration of an adapter on a FLUX.1-class base (rank above 0, autoencoder 'kl')"
        )
    dtype = DTYPES[config.base.dtype]
    network.requires_grad_(False).to(dtype)
    network.compute_in(dtype)
    autoencoder.requires_grad_(False)
    weights = [sum(p.numel() * p.element_size() for p in module.parameters()) for module in (network, autoencoder)]
    block = max(sum(p.numel() * p.element_size() for p in b.parameters()) for b in network.blocks)
    for part, targets in ((network, config.adapter.transformer), (autoencoder, config.adapter.encoder)):
        lora.inject(part.adapted, targets, config.adapter.rank, config.adapter.alpha)
    trained = sum(p.numel() for module in (network, autoencoder) for p in module.parameters() if p.requires_grad)
    kept, inside = _activations(config, network, autoencoder, micro, checkpointing=False)
    if checkpointing:
        kept, _ = _activations(config, network, autoencoder, micro, checkpointing=True)
        kept += inside
    return Need(*weights, adapter=trained * BYTES_TRAINED, activations=kept, block=block)


def _activations(
    config: Config, network: VelocityNetwork, autoencoder: Autoencoder, micro: int, *, checkpointing: bool
) -> tuple[int, int]:
    """(kept bytes, most inside one unit) of the passes of a step: the one step, its pixels, and FATC, anchor, fake."""
    for part in (network, autoencoder):
        part.set_gradient_checkpointing(checkpointing)
    units = [*network.blocks, *autoencoder.blocks]
    side, few = config.data.crop, -(-micro // config.stages.sr.paths_every)
    cells = side // autoencoder.downscale

    def latents(count: int) -> Tensor:
        return torch.zeros(count, latent_channels(config), cells, cells, device="meta", requires_grad=True)

    def velocity(count: int) -> Callable[[], Tensor]:
        return lambda: network(latents(count), torch.zeros(count, device="meta"))

    passes: list[Callable[[], Tensor]] = [
        lambda: autoencoder.encode(torch.zeros(micro, 3, side, side, device="meta", requires_grad=True)),
        velocity(micro),
        lambda: autoencoder.decode(latents(micro)),
        *(velocity(few) for _ in range(3)),
    ]
    kept, inside = 0, 0
    for run in passes:
        with torch.autocast("cpu", dtype=torch.bfloat16), SavedBytes(network, autoencoder, units=units) as saved:
            run()
        kept, inside = kept + saved.total, max(inside, saved.largest_unit)
    return kept, inside


def table(config: Config, micros: tuple[int, ...]) -> str:
    """Markdown: one line per layout and micro batch."""
    needs = {micro: measure(config, micro, checkpointing=config.adapter.checkpointing) for micro in micros}
    lines = [
        "| layout | micro batch | frozen weights | adapter, optimiser, average | activations | in all, per GPU |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    layouts = (("whole network on each GPU (one GPU, or DDP)", 1), ("transformer spread over 8 GPUs (FSDP2)", 8))
    for name, shards in layouts:
        for micro, need in needs.items():
            frozen = need.transformer / shards + need.autoencoder + (2 * need.block if shards > 1 else 0)
            parts = [frozen, need.adapter, need.activations]
            cells = [f"{value / GB:.1f} GB" for value in (*parts, sum(parts))]
            lines.append(f"| {name} | {micro} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """`python -m train memory [--config ...] [--micro 1 2 4]`."""
    parser = argparse.ArgumentParser(prog="python -m train memory", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("train/configs/flux1_dev.toml"))
    parser.add_argument("--micro", type=counting, nargs="+", default=[1, 2, 4], help="micro batches to work out")
    arguments = parser.parse_args(argv)
    print(table(load_config(arguments.config), tuple(arguments.micro)))  # noqa: T201 - the table is the result
    return 0
