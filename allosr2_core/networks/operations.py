"""The layers a network is built from, as a namespace, so that a host can supply its own.

ComfyUI's `operations` classes cast weights, offload them or run them in fp8. They take the constructor arguments of
their torch.nn counterparts; `torch.nn` itself is the default wherever a network takes `operations`.
"""

from collections.abc import Callable
from typing import Protocol

from torch import nn


class Operations(Protocol):
    """What a namespace of layers must offer: constructors with torch.nn's signatures, device and dtype included."""

    @property
    def Linear(self) -> Callable[..., nn.Module]: ...

    @property
    def LayerNorm(self) -> Callable[..., nn.Module]: ...

    @property
    def Conv2d(self) -> Callable[..., nn.Module]: ...

    @property
    def GroupNorm(self) -> Callable[..., nn.Module]: ...
