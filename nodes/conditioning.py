"""What a transformer is told besides image and time: the checkpoint's empty prompt, or the user's CONDITIONING."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..allosr2_core.bases.registry import FAMILIES
from ..allosr2_core.errors import AlloSR2Error
from .comfy_host.execution import ExecutionBlocker
from .comfy_host.model import Prompt

if TYPE_CHECKING:
    from .spec import Spec


def of_checkpoint(spec: Spec) -> list[list[Any]] | ExecutionBlocker:
    """The empty prompt as a CONDITIONING for core nodes; one that blocks them where the checkpoint has none."""
    if spec.null is None and spec.config.adapter:
        return ExecutionBlocker(
            f"{spec.name!r} brings no empty prompt: use the CONDITIONING of CLIP Text Encode with an empty text"
        )
    prompt = _null(spec)
    return [[prompt.context, dict(prompt.extras)]]


def prompt_for(spec: Spec, conditioning: list[list[Any]] | None) -> Prompt | None:
    """What `velocity` is given: None for networks without text.

    Raises AlloSR2Error for a CONDITIONING that is not wanted, missing or not a single prompt.
    """
    if not spec.config.adapter:
        if conditioning is not None:
            raise AlloSR2Error(f"{spec.name!r} takes no text conditioning: disconnect the input 'conditioning'")
        return None
    if conditioning is None:
        if spec.null is None:
            raise AlloSR2Error(
                f"{spec.name!r} brings no empty prompt: connect the CONDITIONING of CLIP Text Encode with an empty "
                "text to 'conditioning'"
            )
        return _null(spec)
    if len(conditioning) != 1:
        raise AlloSR2Error(f"expected one prompt on 'conditioning'; got {len(conditioning)} combined ones")
    context, extras = conditioning[0]
    family = FAMILIES.get(spec.config.network.get("type", ""))
    if family is not None and family.pooled and extras.get("pooled_output") is None:
        raise AlloSR2Error(f"{family.title} needs a CONDITIONING with a pooled output (CLIP Text Encode); it has none")
    return Prompt(context, _with_guidance(spec, extras))


def _null(spec: Spec) -> Prompt:
    context, pooled = spec.null or (torch.zeros(1, 1, 1), torch.zeros(1, 1))
    return Prompt(context.float(), _with_guidance(spec, {"pooled_output": pooled.float()}))


def _with_guidance(spec: Spec, extras: Mapping[str, Any]) -> dict[str, Any]:
    """A missing guidance means 3.5 to the host: it is always stated, the user's own or the checkpoint's."""
    return {"guidance": spec.config.network.get("guidance"), **extras}
