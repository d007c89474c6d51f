"""What a running node tells the host: how far it is, what it did, that it heard a cancel; and nodes in its place."""

from __future__ import annotations

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted as stop_if_cancelled
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

__all__ = ["ExecutionBlocker", "GraphBuilder", "Ticker", "number_in_list", "show_text", "stop_if_cancelled"]


class Ticker:
    """Called once per tile: stops when the user cancelled, then moves the node's progress bar on."""

    def __init__(self, total: int) -> None:
        self._bar = comfy.utils.ProgressBar(total)

    def __call__(self) -> None:
        stop_if_cancelled()
        self._bar.update(1)


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
