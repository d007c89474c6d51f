"""What a running node tells the host: how far it is, what it did, that it heard a cancel; and nodes in its place."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted as stop_if_cancelled
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

if TYPE_CHECKING:
    from .preview import Preview

__all__ = ["ExecutionBlocker", "GraphBuilder", "Ticker", "number_in_list", "show_text", "stop_if_cancelled"]


PREVIEW_EVERY = 0.5
"""Seconds before the first preview and between two, at least: each is a picture that is packed and sent."""


class Ticker:
    """Called once per tile: stops when the user cancelled, then moves the node's progress bar on.

    With a preview the node also shows that.
    """

    def __init__(self, total: int) -> None:
        self._bar, self._done, self._shown = comfy.utils.ProgressBar(total), 0, time.monotonic()
        self.preview: Preview | None = None

    def __call__(self) -> None:
        stop_if_cancelled()
        self._done += 1
        now, picture = time.monotonic(), None
        if self.preview is not None and now - self._shown >= PREVIEW_EVERY:
            picture, self._shown = self.preview.image(), now
        self._bar.update_absolute(self._done, preview=picture)


def number_in_list() -> int:
    """Which value of a list the running node was called with; 0 where it was given a single one."""
    context = get_executing_context()
    return 0 if context is None else context.list_index or 0


def show_text(text: str) -> None:
    """Show a text on the running node, or on the node that it stands in for; without a server nothing happens."""
    context = get_executing_context()
    if context is None:
        return
    from server import PromptServer  # only where there is one: it takes the whole host with it

    node_id = get_progress_state().dynprompt.get_display_node_id(context.node_id)
    PromptServer.instance.send_progress_text(text, node_id, PromptServer.instance.client_id)
