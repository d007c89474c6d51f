"""A network that is trained against a stage's own, by an optimiser of its own.

Its loss is one of the stage's terms, on results cut off from what made them. So one forward and one backward pass serve
both sides, and gradients add up over micro batches and processes for both alike. What the stage is charged goes through
`Adversary.held`, which leaves the adversary no gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from allosr2_core.errors import AlloSR2Error

from .optimizers import BETAS
from .state import load_trained_state, trained_state


class Adversary(nn.Module):
    """`network` and its Adam, with the decay rates of the stage's (`optimizers.BETAS`); neither averaged nor exported.

    Args:
        network: what is frozen in it stays as it is.
        lr: peak learning rate; it rises and falls with the stage's.
    """

    def __init__(self, network: nn.Module, lr: float) -> None:
        super().__init__()
        self.network, self.lr = network, lr
        self.learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learning, lr=lr, betas=BETAS, weight_decay=0.0, fused=True)

    def held(self, *inputs: Any) -> Any:
        """The network's answer to inputs, which gradients pass through to the inputs alone."""
        parameters = {name: parameter.detach() for name, parameter in self.network.named_parameters()}
        return functional_call(self.network, parameters, inputs)

    def clip(self, largest: float) -> float:
        """Limit the gradient to a norm; returns what the norm was."""
        return float(nn.utils.clip_grad_norm_(self.learning, largest))

    def update(self, factor: float) -> None:
        """One step at `factor` times the peak learning rate; gradients are used up."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def saved(self) -> dict[str, Any]:
        """What `load` goes on from."""
        return {"trained": trained_state(self.network), "optimizer": self.optimizer.state_dict()}

    def load(self, saved: dict[str, Any] | None, where: str) -> None:
        """Go on from a state. AlloSR2Error where there is none, or one of another network."""
        if saved is None:
            raise AlloSR2Error(
                f"{where}: expected the state of an adversary; the run had none. Start a new run from its averaged "
                "modules with --init-from"
            )
        load_trained_state(self.network, saved["trained"], where)
        self.optimizer.load_state_dict(saved["optimizer"])
