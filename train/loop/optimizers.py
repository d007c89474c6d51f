"""What a stage is optimised with: AdamW, or Muon.

Muon is momentum whose update is orthogonalised, for the weights of convolutions and linear layers (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon), with the scale of the update and the weight decay of Liu et al. 2025 (arXiv
2502.16982): learning rates are of AdamW's size. torch.optim.Muon takes matrices only; a convolution's weight is one
too, [out, in * kh * kw], and that is all this adds. Every other parameter is AdamW's, without decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from allosr2_core.errors import AlloSR2Error

from ..config_stages import OptimConfig

BETAS = (0.9, 0.99)
MOMENTUM = 0.95
WEIGHT_DECAY = 0.1
"""Of Muon's matrices, times the learning rate: their updates never shrink, so neither would the weights."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration: steepest at zero, singular values end between about 0.7 and 1.2."""
ITERATIONS = 5
SMALLEST_SIDE = 48
"""A weight with fewer rows or columns than this is AdamW's: the first and last layers."""


def takes(parameter: Tensor) -> bool:
    """Whether Muon trains this parameter."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= SMALLEST_SIDE


def as_matrix(weight: Tensor) -> Tensor:
    """[out, in, *kernel] -> [out, kernel * in]: a view of what is stored channels last, as convolutions are here."""
    return weight.movedim(1, -1).flatten(1)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: [N, rows, columns], in bf16 if they are, else in fp32.

    An iteration is X <- a X + b (X X^T) X + c (X X^T)^2 X.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x if x.dtype == torch.bfloat16 else x.float()
    x = x / torch.linalg.vector_norm(x.flatten(1), dim=1).clamp(min=1e-7)[:, None, None]
    x = _iterate(x) if x.dtype == torch.bfloat16 else _product_of_iterations(x) @ x
    return x.mT if tall else x


def _iterate(x: Tensor) -> Tensor:
    """The iterations one after the other, as published."""
    for _ in range(ITERATIONS):
        x = _polynomial(x @ x.mT) @ x
    return x


def _product_of_iterations(x: Tensor) -> Tensor:
    """What the iterations multiply X with from the left.

    One is a product P X with a polynomial P of the Gram matrix X X^T, which itself becomes P (X X^T) P. So all of them
    run on Gram matrices of the shorter side: a third of the work for the weights of 3x3 convolutions. Squaring costs
    half the digits, which bf16 lacks.
    """
    gram = x @ x.mT
    product = None
    for left in reversed(range(ITERATIONS)):
        p = _polynomial(gram)
        product = p if product is None else p @ product
        if left:
            gram = p @ gram @ p
    return product


def _polynomial(gram: Tensor) -> Tensor:
    """a I + b G + c G^2."""
    a, b, c = NEWTON_SCHULZ
    p = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    p.diagonal(dim1=1, dim2=2).add_(a)
    return p


class Muon(torch.optim.Optimizer):
    """AdamW, with Muon's update for the parameters that `takes` accepts.

    Those without a gradient and those of groups whose rate is 0 are left alone, their momenta too.

    Args:
        dtype: of the orthogonalisation: bf16 where that is native, as published, or fp32.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = MOMENTUM,
        betas: tuple[float, float] = BETAS,
        eps: float = 1e-8,
        weight_decay: float = WEIGHT_DECAY,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            if not group["lr"]:
                continue
            trained = [p for p in group["params"] if p.grad is not None]
            self._muon([p for p in trained if takes(p)], group)
            self._adam([p for p in trained if not takes(p)], group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for p in parameters:
            by_shape.setdefault((p.shape[0], p[0].numel()), []).append(p)
        for shape, alike in by_shape.items():
            updates = torch.empty(len(alike), *shape, dtype=self.dtype, device=alike[0].device)
            for p, update in zip(alike, updates, strict=True):
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1.0 - group["momentum"])
                update.copy_(as_matrix(torch.lerp(p.grad, momentum, group["momentum"])))  # Nesterov
            scale = 0.2 * max(shape) ** 0.5  # entries of AdamW's size, RMS about 0.2
            for p, update in zip(alike, orthogonalise(updates), strict=True):
                p.mul_(1.0 - group["lr"] * group["weight_decay"])
                as_stored = update.view(p.shape[0], *p.shape[2:], p.shape[1]).movedim(-1, 1)
                p.add_(as_stored, alpha=-group["lr"] * scale)

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        for p in parameters:
            state = self.state[p]
            if not state:
                state["step"], state["mean"], state["power"] = torch.zeros(()), torch.zeros_like(p), torch.zeros_like(p)
            state["step"] = state["step"].to(p.device)  # where the fused update wants it, and loading does not put it
        states = [self.state[p] for p in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters],
            [state["mean"] for state in states],
            [state["power"] for state in states],
            [],
            [state["step"] for state in states],
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )


def make_optimizer(
    optim: OptimConfig, groups: list[dict[str, Any]], dtype: torch.dtype = torch.float32
) -> torch.optim.Optimizer:
    """The optimiser that a configuration names, for these parameter groups; `dtype`: see `Muon`."""
    if optim.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=BETAS, weight_decay=0.0, fused=True)
    if optim.optimizer == "muon":
        return Muon(groups, lr=optim.lr, dtype=dtype)
    raise AlloSR2Error(f"optimizer: expected 'adamw' or 'muon'; got {optim.optimizer!r}")


def optimizer_of(state: dict[str, Any]) -> str | None:
    """The configured name of the optimiser that a state is of; None for one that has not made a step."""
    kept = {name for of_parameter in state["state"].values() for name in of_parameter}
    if not kept:
        return None
    return "adamw" if "exp_avg" in kept else "muon"
