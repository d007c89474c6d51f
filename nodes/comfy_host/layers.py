"""The host's own layers in the networks of the core."""

from __future__ import annotations

from torch import nn


def with_host_layers(network: nn.Module, operations: type) -> None:
    """Put the host's layers in the place of torch's of the same names, in place; the parameters stay the same objects.

    Such a layer casts its weights to the type of what comes in where the host stores them in another (manual cast),
    takes them from another device where memory is short, and stops when the user has cancelled.

    Args:
        operations: what `comfy.ops.pick_operations` gives, a class that has the layers.
    """
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            kind = type(layer)
            hosted_kind = getattr(operations, kind.__name__, None)
            if hosted_kind is not None and kind.__module__.startswith(nn.__name__):
                hosted = hosted_kind.__new__(hosted_kind)
                vars(hosted).update(vars(layer))  # a constructor would make new weights
                setattr(module, name, hosted)
