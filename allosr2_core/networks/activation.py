"""The activation of the small networks."""

import torch
import torch.nn.functional as F
from torch import Tensor


def silu_of_own(x: Tensor) -> Tensor:
    """silu(x) of a map that nothing else needs: in its memory where autograd is off."""
    return F.silu(x, inplace=not torch.is_grad_enabled())
