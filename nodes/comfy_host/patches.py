"""Weight patches through the host's own LoRA loader, every tensor counted."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

import comfy.lora
from torch import Tensor

from ...allosr2_core.adapters.weight_diff import listed
from ...allosr2_core.bases.registry import spellings
from ...allosr2_core.errors import AlloSR2Error

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

_SUFFIXES = {
    ".diff_b": ".bias",
    ".diff": ".weight",
    ".lora_A.weight": ".weight",
    ".lora_B.weight": ".weight",
    ".alpha": ".weight",
}
"""Suffixes the host's loader reads -> the parameter each one changes."""


def add_patches_strictly(patcher: ModelPatcher, tensors: Mapping[str, Tensor], strength: float) -> None:
    """Add weight differences (`X.diff`, `X.diff_b`) or LoRA pairs (`X.lora_A.weight` ...) to a patcher, in place.

    X is the full name of a layer in the patched model, in any spelling. The host only logs what it does not recognise
    or what has the wrong shape, and of two differences for one parameter it keeps one, so the matches are counted:
    AlloSR2Error unless every tensor found its parameter, fits it, and no parameter is named in two spellings.
    """
    shapes = {name: tuple(value.shape) for name, value in patcher.model.named_parameters()}  # GGUF's: as unpacked
    keys = {spelling.removesuffix(".weight"): name for name in shapes for spelling in spellings(name)}
    patches = comfy.lora.load_lora(dict(tensors), keys, log_missing=False)
    applied = set(patcher.add_patches(patches, strength))
    missing = []
    layers: dict[str, set[str]] = {}
    for name, value in tensors.items():
        layer, target = _target(name, shapes)
        layers.setdefault(target, set()).add(layer)
        if target not in applied or not _fits(name, tuple(value.shape), shapes[target]):
            missing.append(f"{name} {tuple(value.shape)} for {target} {shapes.get(target, '(not there)')}")
    if missing:
        raise AlloSR2Error(
            f"expected every tensor of the checkpoint's difference to fit a parameter of the model; "
            f"{len(missing)} of {len(tensors)} do not: {listed(missing)}"
        )
    twice = [f"{target} as {' and '.join(sorted(names))}" for target, names in layers.items() if len(names) > 1]
    if twice:
        raise AlloSR2Error(f"expected one name for each parameter; got two for {len(twice)}: {listed(twice)}")


def keep_exact(patcher: ModelPatcher, exact: Mapping[str, Tensor]) -> None:
    """Let patches change the weights as they were before rounding to the patcher's type, in place.

    exact: weights by their names in the patched model. What rounding took from one becomes its first patch: the host
    adds patches in fp32 and rounds the sum. A type that holds the weights as they are needs none.
    """
    rounded = patcher.model_state_dict()
    lost = {name: value - rounded[name].to(value) for name, value in exact.items()}
    patcher.add_patches({name: ("diff", (value,)) for name, value in lost.items() if bool(value.any())})


def _fits(name: str, shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether a tensor of a LoRA file can change a parameter of this shape."""
    if name.endswith(".lora_A.weight"):
        return shape[1:] == target[1:]
    if name.endswith(".lora_B.weight"):
        return shape[:1] == target[:1]
    return name.endswith(".alpha") or shape == target


def _target(name: str, parameters: Container[str]) -> tuple[str, str]:
    """What a tensor of a LoRA file names, a layer or a parameter, and the model's own name for what it changes."""
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            layer = name.removesuffix(suffix)
            known = (*spellings(layer + kind), *spellings(layer))
            return layer, next((spelling for spelling in known if spelling in parameters), layer)
    return name, name
