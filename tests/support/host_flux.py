"""FLUX's transformer as the ComfyUI at hand has it. Import it in ComfyUI's own modules only.

Hosts differ in the names of the head norms' gains and in the settings they know.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from comfy.ldm.flux.model import FluxParams
from torch import nn
from torch.nn import functional


def settings(given: Mapping[str, Any], txt_ids_dims: tuple[int, ...] = ()) -> dict[str, Any]:
    """Settings of a host's FLUX, with the axes that count text tokens (FLUX.1: none) where the host asks for them."""
    asked = {field.name for field in fields(FluxParams)}
    return dict(given) | ({"txt_ids_dims": list(txt_ids_dims)} if "txt_ids_dims" in asked else {})


class HeadNorm(nn.Module):
    """A head norm whose gain has a name of one's choice."""

    def __init__(self, name: str, gain: torch.Tensor) -> None:
        super().__init__()
        self.name = name
        self.register_parameter(name, nn.Parameter(gain.detach().clone(), requires_grad=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gain = getattr(self, self.name).to(x)
        return functional.rms_norm(x, gain.shape, gain, 1e-6)


def rename_gains(transformer: nn.Module, name: str) -> set[str]:
    """Give every head norm of a host's FLUX a gain of this name, with the values it has; the names it had."""
    had = set()
    for path, norm in list(transformer.named_modules()):
        parent, _, attribute = path.rpartition(".")
        if attribute in ("query_norm", "key_norm"):
            ((old, gain),) = norm.named_parameters()
            had.add(old)
            setattr(transformer.get_submodule(parent), attribute, HeadNorm(name, gain))
    return had
