"""What a running node tells the host: how far it is, that it heard a cancel, that an output has no value."""

from __future__ import annotations

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted as stop_if_cancelled
from comfy_execution.graph_utils import ExecutionBlocker

__all__ = ["ExecutionBlocker", "Ticker", "stop_if_cancelled"]


class Ticker:
    """Called once per tile: stops when the user cancelled, then moves the node's progress bar on."""

    def __init__(self, total: int) -> None:
        self._bar = comfy.utils.ProgressBar(total)

    def __call__(self) -> None:
        stop_if_cancelled()
        self._bar.update(1)
