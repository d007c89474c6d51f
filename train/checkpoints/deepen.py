"""A checkpoint's U-Net with more residual blocks, computing the same: a larger network to go on training.

python -m train deepen [CHECKPOINT] --blocks 6,6,6 --out FILE

The new blocks come last in their levels. Their second convolution is zero, so they pass on what they get, in the prior
as in the SR flow (Chen et al. 2016, Net2Net, arXiv 1511.05641, section 2.2): what was learned is kept, and the prior
that ATM and the drift are measured against stays the same function. Deepened alike, two checkpoints of one prior still
have one prior and can be mixed. The file is written in fp16.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from allosr2_core.adapters.weight_diff import export_diff
from allosr2_core.checkpoint.format import FLOW, HOST_FLOW, LORA_FLOW, Checkpoint, embedded_path, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.registry import build_network
from allosr2_core.networks.unet import VelocityUNet

from ..data.crops import derive_seed
from .interpolate import write_from

log = logging.getLogger(__name__)


def deepened(checkpoint: Checkpoint, blocks: tuple[int, ...]) -> Checkpoint:
    """The same functions, from networks with `blocks` residual blocks per level.

    AlloSR2Error for an adapter or a transformer, another number of levels, fewer blocks than there are, or as many.
    """
    network = checkpoint.build_network()  # an adapter is refused here
    if not isinstance(network, VelocityUNet):
        raise AlloSR2Error(f"expected a checkpoint with a U-Net; got {checkpoint.config.network.get('type')!r}")
    before = network.params.blocks
    if len(blocks) != len(before) or any(new < old for new, old in zip(blocks, before, strict=True)):
        raise AlloSR2Error(f"expected {len(before)} levels of at least {before} blocks; got {blocks}")
    if blocks == before:
        raise AlloSR2Error(f"expected more blocks than the {before} there are; got as many")
    spec = {**checkpoint.config.network, "blocks": list(blocks)}
    prior, tuned = (_filled(spec, part) for part in (checkpoint.build_prior(), network))
    kept = {name: value for name, value in checkpoint.tensors.items() if not name.startswith((FLOW, LORA_FLOW))}
    tensors = {FLOW + name: value for name, value in prior.state_dict().items()}
    tensors |= {LORA_FLOW + name: value for name, value in export_diff(prior, tuned, HOST_FLOW).items()}
    config = dataclasses.replace(checkpoint.config, network=spec)
    steps = [*checkpoint.training.get("deepened", []), {"from": list(before), "to": list(blocks)}]
    record = {**checkpoint.training, "deepened": steps}
    return Checkpoint(config, record, tensors | kept)


def _filled(spec: dict[str, Any], shallow: nn.Module) -> nn.Module:
    """A network of this shape with the weights of `shallow` where it has any; new blocks are alike in every call."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(derive_seed(0, "deepen"))
        network = build_network(spec)
    weights: dict[str, Tensor] = network.state_dict() | dict(shallow.state_dict())
    network.load_state_dict(weights)
    return network


def block_counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m train deepen", description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=embedded_path())
    parser.add_argument("--blocks", type=block_counts, required=True, help="per level, finest first, e.g. 6,6,6")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    deeper = deepened(load_checkpoint(arguments.checkpoint), arguments.blocks)
    write_from(arguments.out, deeper, [arguments.checkpoint])
    log.info("%s: %s with blocks %s", arguments.out, arguments.checkpoint.name, arguments.blocks)
    return 0
