"""The folder of made pictures as measurements read it."""

from __future__ import annotations

from pathlib import Path

from allosr2_core.errors import AlloSR2Error

KINDS = ("text", "line")


def load_drawings(root: Path, split: str, kind: str) -> list[Path]:
    """Sorted paths of the pictures of one kind and split under `root` (normally `data/drawings`).

    AlloSR2Error where there are none; the message gives the command that makes them.
    """
    folder = root / split
    found = sorted(folder.glob(f"{kind}-*.png"))
    if not found:
        raise AlloSR2Error(f"no drawings of kind {kind!r} in {folder}: run `python -m train drawings` first")
    return found
