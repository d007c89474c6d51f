"""A tuned network as its prior plus a full-weight difference, under names the host accepts.

Names in files, behind a prefix such as `diffusion_model.`, for a layer X or a parameter P of the network:

    X.diff  difference of X.weight     X.diff_b  difference of X.bias     P.diff  of any other parameter
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import AlloSR2Error, cut, one_line

LONGEST_NAME = 120
"""Characters of a name in an error message."""


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names for an error message: the first few in order, and how many more there are."""
    first = ", ".join(cut(one_line(name), LONGEST_NAME) for name in sorted(names)[:most]) or "none"
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def export_diff(prior: nn.Module, tuned: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Every parameter of `tuned` minus that of `prior`, float32 on the CPU.

    Adding it back gives the tuned parameter exactly where the two are within a factor of two, else to within one
    rounding of the difference (2^-24 of its size).

    Raises:
        AlloSR2Error: the networks differ in parameter names, shapes or buffers.
    """
    ours, theirs = dict(prior.named_parameters()), dict(tuned.named_parameters())
    odd = [name for name in ours.keys() | theirs.keys() if _shape(ours.get(name)) != _shape(theirs.get(name))]
    mine, other = dict(prior.named_buffers()), dict(tuned.named_buffers())
    odd += [name for name in mine.keys() | other.keys() if not _equal(mine.get(name), other.get(name))]
    if odd:
        raise AlloSR2Error(
            f"difference: expected equal parameter names, shapes and buffers, these differ: {listed(odd)}"
        )
    return {
        key: (theirs[name].detach().float().cpu() - ours[name].detach().float().cpu())
        for key, name in diff_names(prior, prefix).items()
    }


def apply_diff(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, strength: float = 1.0) -> None:
    """Add strength times the named differences to the parameters, in float32, in place. All or nothing.

    Raises:
        AlloSR2Error: a key that fits no parameter, or a shape that does not fit.
    """
    names, present = diff_names(module, prefix), dict(module.named_parameters())
    unknown = [key for key in tensors if key not in names]
    if unknown:
        raise AlloSR2Error(f"difference: expected keys behind {prefix!r}, these fit no parameter: {listed(unknown)}")
    for key, tensor in tensors.items():
        if tensor.shape != present[names[key]].shape:
            want = tuple(present[names[key]].shape)
            raise AlloSR2Error(f"difference: {key}: expected shape {want}, got {tuple(tensor.shape)}")
    with torch.no_grad():
        for key, tensor in tensors.items():
            parameter = present[names[key]]
            parameter.copy_(parameter.float() + strength * tensor.to(parameter.device, torch.float32))


def diff_names(module: nn.Module, prefix: str) -> dict[str, str]:
    """Name in a file -> name of the parameter it changes, for every parameter of `module`."""
    names = {name for name, _ in module.named_parameters()}
    keys = {}
    for name in sorted(names):
        layer, _, kind = name.rpartition(".")
        if layer and kind == "weight":
            keys[f"{prefix}{layer}.diff"] = name
        elif layer and kind == "bias" and f"{layer}.weight" in names:
            keys[f"{prefix}{layer}.diff_b"] = name
        else:
            keys[f"{prefix}{name}.diff"] = name
    return keys


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _equal(one: Tensor | None, two: Tensor | None) -> bool:
    return one is not None and two is not None and one.shape == two.shape and bool((one.cpu() == two.cpu()).all())
