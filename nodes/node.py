"""What all nodes of the pack have in common: where they are found, and how they say that a value is refused."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

CATEGORY = "image/upscaling"
"""Beside core's own nodes for it."""
WORDS = ("restore", "super resolution", "upscale", "enhance", "denoise", "sharpen")
"""What people type who look for such a node."""


def schema(node_id: str, *, words: tuple[str, ...] = WORDS, **given: object) -> io.Schema:
    """A node's schema in the pack's category. words: what a search finds it by, on hosts whose schemas have aliases."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    aliases = {"search_aliases": list(words)} if "search_aliases" in known else {}
    return io.Schema(node_id=node_id, category=CATEGORY, **given, **aliases)


class Node(io.ComfyNode):
    """A node whose refusals can be read.

    What the host refuses before a run, ComfyUI 0.3.75 shows as a red frame without a word, as long as any other output
    can be made. What a node raises is shown as a sentence in every case. So the host's checks of constants are
    switched off, and the values are checked by what they are for, before the work.
    """

    @classmethod
    def validate_inputs(cls, **_: object) -> bool:
        return True
