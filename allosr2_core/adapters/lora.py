"""Low-rank branches (LoRA) on a frozen network, exchanged under names the host accepts.

LoRA (Hu et al. 2021): a layer with weight W answers W x + strength * alpha / rank * B (A x), with B zero at the start.
A branch lives in its layer as the child `lora`, so it moves, copies and trains with the network; the layer's own
parameters keep their names. A forward hook adds the branch.

Names in files, for a layer X behind a prefix such as `diffusion_model.`:

    X.lora_A.weight (rank, in[, kh, kw])   X.lora_B.weight (out, rank[, 1, 1])   X.alpha ()
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import AlloSR2Error, shown
from .layer_patterns import read_patterns
from .weight_diff import listed

Layer = nn.Linear | nn.Conv2d

BRANCH = "lora"  # the child of a layer that holds its branch
DOWN_KEY, UP_KEY, ALPHA_KEY = ".lora_A.weight", ".lora_B.weight", ".alpha"


class LoRABranch(nn.Module):
    """The low-rank side of one layer: `up(down(x))` times `factor`."""

    def __init__(self, layer: Layer, rank: int, alpha: float, dtype: torch.dtype) -> None:
        super().__init__()
        place = {"bias": False, "device": layer.weight.device, "dtype": dtype}
        if isinstance(layer, nn.Conv2d):
            if layer.groups != 1:
                raise AlloSR2Error(f"LoRA: expected a convolution with groups 1, got groups {layer.groups}")
            self.down: Layer = nn.Conv2d(
                layer.in_channels,
                rank,
                layer.kernel_size,  # pyright: ignore[reportArgumentType] - pairs at run time
                stride=layer.stride,  # pyright: ignore[reportArgumentType]
                padding=layer.padding,  # pyright: ignore[reportArgumentType]
                dilation=layer.dilation,  # pyright: ignore[reportArgumentType]
                padding_mode=layer.padding_mode,
                **place,
            )
            self.up: Layer = nn.Conv2d(rank, layer.out_channels, 1, **place)
        else:
            self.down = nn.Linear(layer.in_features, rank, **place)
            self.up = nn.Linear(rank, layer.out_features, **place)
        nn.init.zeros_(self.up.weight)
        self.rank = rank
        self.alpha = float(torch.tensor(alpha, dtype=torch.float32))  # as a file keeps it
        self.strength = 1.0

    @property
    def factor(self) -> float:
        """strength * alpha / rank."""
        return self.strength * self.alpha / self.rank

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x.to(self.down.weight.dtype))) * self.factor


def inject(
    model: nn.Module,
    targets: Sequence[str],
    rank: int,
    alpha: float,
    *,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Give every matching Linear and Conv2d a branch that adds nothing yet. Base parameters are left as they are.

    Args:
        model: network to adapt.
        targets: patterns (`layer_patterns`); a layer matches when one of them fits its whole dotted name.
        rank: inner width, at least 1.
        alpha: the branch is scaled by alpha / rank.
        dtype: of the branch, float32 by default so that small updates survive on half-precision bases.
        generator: source of the random A matrices.

    Returns:
        Names of the adapted layers.

    Raises:
        AlloSR2Error: bad rank or alpha, a pattern that fits no layer, a layer that has a branch or is a grouped conv.
    """
    if rank < 1 or not math.isfinite(alpha):
        raise AlloSR2Error(f"LoRA: expected rank >= 1 and a finite alpha, got rank {rank} and alpha {alpha}")
    chosen = matching_layers(model, targets)
    taken = [name for name, layer in chosen.items() if _branch(layer) is not None]
    if taken:
        raise AlloSR2Error(f"LoRA: expected layers without a branch, these have one: {listed(taken)}")
    branches = {name: LoRABranch(layer, rank, alpha, dtype) for name, layer in chosen.items()}
    for name, branch in branches.items():
        nn.init.kaiming_uniform_(branch.down.weight, a=math.sqrt(5), generator=generator)  # +-1 / sqrt(fan in)
        _attach(chosen[name], branch)
    return list(chosen)


def matching_layers(model: nn.Module, targets: Sequence[str]) -> dict[str, Layer]:
    """The Linear and Conv2d layers whose whole dotted name fits one of the patterns (`layer_patterns`), by name.

    Raises:
        AlloSR2Error: a pattern that fits no layer, or is none.
    """
    layers = _base_layers(model)
    chosen: dict[str, Layer] = {}
    for pattern in read_patterns(targets):
        found = {name: layer for name, layer in layers.items() if pattern.fits(name)}
        if not found:
            raise AlloSR2Error(
                f"LoRA: expected {shown(pattern.text)} to fit the name of a Linear or Conv2d, it fits none"
            )
        chosen |= found
    return chosen


def branch_shapes(layer: Layer, rank: int) -> dict[str, tuple[int, ...]]:
    """Key suffix -> shape of the three tensors that a file holds for a layer's branch."""
    kernel = tuple(layer.weight.shape[2:])
    return {
        DOWN_KEY: (rank, layer.weight.shape[1], *kernel),
        UP_KEY: (layer.weight.shape[0], rank, *(1 for _ in kernel)),
        ALPHA_KEY: (),
    }


def set_scale(model: nn.Module, strength: float) -> None:
    """Set every branch's strength (1 as trained, 0 off)."""
    for _, branch in _adapted(model):
        branch.strength = float(strength)


@contextmanager
def scaled(model: nn.Module, strength: float) -> Iterator[None]:
    """Run with another strength, 0 for the base network, and put the old ones back.

    Not for a pass whose backward recomputes it (gradient checkpointing) after the block has been left.
    """
    before = [(branch, branch.strength) for _, branch in _adapted(model)]
    set_scale(model, strength)
    try:
        yield
    finally:
        for branch, old in before:
            branch.strength = old


def export_lora(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """All branches as named tensors on the CPU, in their own precision. The strength is the user's and not exported."""
    tensors = {}
    for name, branch in _adapted(model):
        tensors[prefix + name + DOWN_KEY] = branch.down.weight.detach().cpu().clone()
        tensors[prefix + name + UP_KEY] = branch.up.weight.detach().cpu().clone()
        tensors[prefix + name + ALPHA_KEY] = torch.tensor(branch.alpha, dtype=torch.float32)
    return tensors


def import_lora(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> list[str]:
    """Bring named tensors in: into the branches that are there, into new ones elsewhere. All or nothing.

    A missing alpha means alpha = rank, as in the host.

    Returns:
        Names of the layers that were set.

    Raises:
        AlloSR2Error: a key that fits no layer, half a pair, a shape or rank that does not fit.
    """
    layers, pairs, unknown = _base_layers(model), {}, []
    for key in tensors:
        suffix = next((end for end in (DOWN_KEY, UP_KEY, ALPHA_KEY) if key.endswith(end)), None)
        name = key[len(prefix) : -len(suffix)] if suffix and key.startswith(prefix) else None
        if name is None or name not in layers:
            unknown.append(key)
        else:
            pairs.setdefault(name, set()).add(suffix)
    halves = [prefix + name for name, ends in pairs.items() if not {DOWN_KEY, UP_KEY} <= ends]
    if unknown or halves or not pairs:
        raise AlloSR2Error(
            f"LoRA: expected lora_A and lora_B for layers of the network behind {prefix!r}; "
            f"keys that fit no layer: {listed(unknown)}; layers with half a pair: {listed(halves)}"
        )
    made: dict[str, LoRABranch] = {}
    for name in pairs:
        down, up = tensors[prefix + name + DOWN_KEY], tensors[prefix + name + UP_KEY]
        alpha = tensors.get(prefix + name + ALPHA_KEY)
        if alpha is not None and (alpha.numel() != 1 or not torch.isfinite(alpha).all()):
            raise AlloSR2Error(f"LoRA: {prefix + name + ALPHA_KEY}: expected one finite number, got {alpha}")
        made[name] = _filled_branch(prefix + name, layers[name], down, up, None if alpha is None else float(alpha))
    for name, branch in made.items():
        present = _branch(layers[name])
        if present is None:
            _attach(layers[name], branch)
        else:
            with torch.no_grad():
                present.down.weight.copy_(branch.down.weight)
                present.up.weight.copy_(branch.up.weight)
            present.alpha = branch.alpha
    return list(made)


def _base_layers(model: nn.Module) -> dict[str, Layer]:
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    inside = {id(child) for layer in layers.values() if (branch := _branch(layer)) for child in branch.modules()}
    return {name: layer for name, layer in layers.items() if id(layer) not in inside}


def _branch(layer: nn.Module) -> LoRABranch | None:
    branch = getattr(layer, BRANCH, None)
    return branch if isinstance(branch, LoRABranch) else None


def _adapted(model: nn.Module) -> list[tuple[str, LoRABranch]]:
    found = [(name, _branch(layer)) for name, layer in _base_layers(model).items()]
    adapted = [(name, branch) for name, branch in found if branch is not None]
    if not adapted:
        raise AlloSR2Error("LoRA: expected a network with branches, this one has none")
    return adapted


def _add_branch(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    branch = _branch(layer)
    if branch is None or branch.strength == 0.0:
        return output
    return output + branch(args[0]).to(output.dtype)


def _attach(layer: Layer, branch: LoRABranch) -> None:
    layer.add_module(BRANCH, branch)
    layer.register_forward_hook(_add_branch)


def _filled_branch(name: str, layer: Layer, down: Tensor, up: Tensor, alpha: float | None) -> LoRABranch:
    """A new branch from tensors, after checking them against the layer and the branch it may have."""
    rank = down.shape[0] if down.ndim else 0
    present = _branch(layer)
    if rank < 1 or (present is not None and present.rank != rank):
        raise AlloSR2Error(f"LoRA: {name}: expected rank {present.rank if present else '>= 1'}, got {rank}")
    if not down.is_floating_point() or up.dtype != down.dtype:
        raise AlloSR2Error(f"LoRA: {name}: expected two halves of one float type, got {down.dtype} and {up.dtype}")
    branch = LoRABranch(layer, rank, float(rank) if alpha is None else alpha, down.dtype)
    for half, tensor in ((branch.down, down), (branch.up, up)):
        if tensor.shape != half.weight.shape:
            want = tuple(half.weight.shape)
            raise AlloSR2Error(f"LoRA: {name}: expected a half of shape {want}, got {tuple(tensor.shape)}")
        with torch.no_grad():
            half.weight.copy_(tensor)
    return branch
