"""Between two checkpoints of one prior: a weighted mean of what each has learned, as one checkpoint.

python -m train interpolate FIRST SECOND --weight 0.5 --out FILE

Networks tuned from the same weights lie in one valley, and a point between them often keeps the better side of both:
network interpolation (Wang et al. 2018, ESRGAN, section 3.4), there between a faithful and a realistic network.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from allosr2_core.checkpoint.format import FLOW, VAE, Checkpoint, load_checkpoint, write_checkpoint
from allosr2_core.errors import AlloSR2Error

from .history import told_once

log = logging.getLogger(__name__)


def mix(first: Checkpoint, second: Checkpoint, weight: float) -> Checkpoint:
    """(1 - weight) first + weight second, the calibrated t* included; both trainings' records are kept (`told_once`).

    The size of the crops they were trained on may differ: the smaller one is stated.

    AlloSR2Error for adapters (the mean of two factors is not that of their products), other configurations or priors.
    """
    if not 0.0 <= weight <= 1.0:
        raise AlloSR2Error(f"expected a weight of 0 to 1; got {weight:g}")
    for one in (first, second):
        if one.config.adapter:
            raise AlloSR2Error(f"expected checkpoints with a prior of their own; got an adapter for {one.config.base}")
    t_star = round((1.0 - weight) * first.config.t_star + weight * second.config.t_star, 4)
    common = {"t_star": t_star, "trained_size": min(first.config.trained_size, second.config.trained_size)}
    config, other = (dataclasses.replace(one.config, **common) for one in (second, first))
    if config != other:
        fields = [f.name for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(other, f.name)]
        raise AlloSR2Error(f"expected checkpoints of one configuration; they differ in {', '.join(fields)}")
    tensors = {}
    for name, b in second.tensors.items():
        a = first.tensors[name]
        if name.startswith((FLOW, VAE)) and not torch.equal(a, b):
            raise AlloSR2Error(f"expected checkpoints of one prior and autoencoder; {name} differs")
        tensors[name] = torch.lerp(a, b, weight)
    record = {"mixed": [{"weight": w, **one.training} for w, one in ((1.0 - weight, first), (weight, second))]}
    return Checkpoint(config, told_once(record), tensors)


def write_from(out: Path, checkpoint: Checkpoint, sources: Sequence[Path]) -> None:
    """Write a checkpoint made out of the files `sources`, in fp16, with their titles and licences."""
    titles, licences = zip(*(_told(path) for path in sources), strict=True)
    write_checkpoint(
        out,
        checkpoint.config,
        checkpoint.training,
        checkpoint.tensors,
        dtype=torch.float16,
        title=" and ".join(dict.fromkeys(titles)),
        license=" and ".join(dict.fromkeys(licences)),
    )


def _told(path: Path) -> tuple[str, str]:
    """Title and licence of a checkpoint file, which may state neither."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    return metadata.get("modelspec.title", path.stem), metadata.get("modelspec.license", "not stated")


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m train interpolate", description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--weight", type=float, default=0.5, help="of the second, 0 to 1 (default: 0.5)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    first, second = load_checkpoint(arguments.first), load_checkpoint(arguments.second)
    mixed = mix(first, second, arguments.weight)
    write_from(arguments.out, mixed, [arguments.first, arguments.second])
    log.info("%s: %g of %s in %s", arguments.out, arguments.weight, arguments.second.name, arguments.first.name)
    return 0
