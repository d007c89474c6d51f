"""The tensors an adapter file must have: low-rank branches for the layers its configuration names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from ..errors import AlloSR2Error, shown
from .layer_patterns import read_patterns
from .lora import ALPHA_KEY, DOWN_KEY, UP_KEY, branch_shapes, matching_layers

Shape = tuple[int, ...]
PARTS = ("transformer", "vae_encoder")
"""The two networks an adapter changes, as named in the configuration's `adapter` table."""
HOST_FLOW, HOST_ENCODER = "diffusion_model.", "encoder."
"""What the host puts before the names of the velocity network's and the encoder's parameters."""


def check_targets(adapter: Mapping[str, object]) -> list[str]:
    """What is wrong with a configuration's `adapter` table {"transformer": [patterns], "vae_encoder": [patterns]}."""
    problems = []
    if set(adapter) != set(PARTS):
        problems.append(
            f"adapter: expected the fields {', '.join(PARTS)}, got {shown(sorted(adapter)) if adapter else 'none'}"
        )
    for name in PARTS:
        patterns = adapter.get(name, ())
        if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
            problems.append(f"adapter.{name}: expected a list of regular expressions, got {shown(patterns)}")
            continue
        try:
            read_patterns(patterns)
        except AlloSR2Error as error:
            problems.append(f"adapter.{name}: {error}")
    if not problems and not adapter["transformer"]:
        problems.append("adapter.transformer: expected at least one layer")
    return problems


def adapter_shapes(
    network: nn.Module | None, targets: Sequence[str], prefix: str, found: Mapping[str, Shape]
) -> dict[str, Shape]:
    """Name and shape of every tensor a file must hold for the layers that `targets` fit.

    Ranks are the file's own (the height of lora_A); they may differ from layer to layer.

    Args:
        network: the adapted network, also on the meta device; None when only a host can build it. Then layers and
            their widths are taken from the file, and only its inner consistency can be checked.
        targets: patterns of layer names, see `layer_patterns`.
        prefix: what stands before a layer's name in the file.
        found: shapes in the file, by name.

    Raises:
        AlloSR2Error: a pattern that fits no layer.
    """
    ranks = {
        name.removeprefix(prefix).removesuffix(DOWN_KEY): shape[0]
        for name, shape in found.items()
        if name.startswith(prefix) and name.endswith(DOWN_KEY) and shape
    }
    if network is None:
        return _shapes_of_file(targets, prefix, found, ranks)
    return {
        prefix + name + suffix: shape
        for name, layer in matching_layers(network, targets).items()
        for suffix, shape in branch_shapes(layer, ranks.get(name, 0)).items()
    }


def _shapes_of_file(
    targets: Sequence[str], prefix: str, found: Mapping[str, Shape], ranks: Mapping[str, int]
) -> dict[str, Shape]:
    chosen: set[str] = set()
    for pattern in read_patterns(targets):
        fitting = {name for name in ranks if pattern.fits(name)}
        if not fitting:
            raise AlloSR2Error(
                f"LoRA: expected {shown(pattern.text)} to fit the name of a layer in the file, it fits none"
            )
        chosen |= fitting
    shapes: dict[str, Shape] = {}
    for name, rank in ranks.items():
        if name not in chosen:
            continue
        down, up = found[prefix + name + DOWN_KEY], found.get(prefix + name + UP_KEY, (0, 0))
        shapes[prefix + name + DOWN_KEY] = down
        shapes[prefix + name + UP_KEY] = (up[0] if up else 0, rank, *(1 for _ in down[2:]))
        shapes[prefix + name + ALPHA_KEY] = ()
    return shapes


def patterns_for(names: Sequence[str], network: nn.Module) -> list[str]:
    r"""Regular expressions that fit exactly these layers of a network: numbers become `\d+` where that adds none."""
    wanted, patterns = set(names), []
    for general in sorted({_general(name) for name in names}):
        fitting = set(matching_layers(network, [general]))
        if fitting <= wanted:
            patterns.append(general)
        else:
            patterns += [re.escape(name) for name in sorted(fitting & wanted)]
    return patterns


def _general(name: str) -> str:
    return r"\.".join(r"\d+" if part.isdigit() else re.escape(part) for part in name.split("."))
