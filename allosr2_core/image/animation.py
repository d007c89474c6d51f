"""Frames laid over one another, as GIF and APNG describe it: what is shown at each moment."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np


class Disposal(Enum):
    """What happens to a frame's rectangle before the next one is drawn."""

    KEEP = 0
    CLEAR = 1
    RESTORE = 2


@dataclass(frozen=True)
class Patch:
    """A frame as stored: values (h, w, C + 1), alpha last, uint8 or uint16, to be put at (top, left)."""

    values_HWC: np.ndarray
    top: int
    left: int
    disposal: Disposal
    over: bool
    """True: blended over what is there; False: replaces it, alpha included."""


def compose(height: int, width: int, patches: Iterable[Patch]) -> np.ndarray:
    """What is shown when the last of `patches` is: (height, width, C + 1), from an empty (transparent) canvas."""
    canvas: np.ndarray | None = None
    undo: tuple[slice, slice, np.ndarray | int] | None = None
    for patch in patches:
        values = patch.values_HWC
        if canvas is None:
            canvas = np.zeros((height, width, values.shape[-1]), dtype=values.dtype)
        if undo is not None:
            canvas[undo[0], undo[1]] = undo[2]
        rows = slice(patch.top, patch.top + values.shape[0])
        columns = slice(patch.left, patch.left + values.shape[1])
        undo = None
        if patch.disposal is Disposal.CLEAR:
            undo = rows, columns, 0
        elif patch.disposal is Disposal.RESTORE:
            undo = rows, columns, canvas[rows, columns].copy()
        canvas[rows, columns] = _over(values, canvas[rows, columns]) if patch.over else values
    if canvas is None:
        raise ValueError("no frames")
    return canvas


def _over(values: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Porter and Duff's over, for values that are not multiplied by alpha."""
    top = np.iinfo(values.dtype).max
    alpha = values[..., -1:].astype(np.float64) / top
    opaque, clear = values[..., -1:] == top, values[..., -1:] == 0
    if bool((opaque | clear).all()):  # nothing to blend, and no rounding
        return np.where(opaque, values, below)
    under = below[..., -1:].astype(np.float64) / top * (1 - alpha)
    total = alpha + under
    weight = np.divide(alpha, total, out=np.zeros_like(alpha), where=total > 0)
    colour = values[..., :-1] * weight + below[..., :-1] * (1 - weight)
    blended = np.concatenate((colour, total * top), axis=-1).round().astype(values.dtype)
    return np.where(clear, below, np.where(opaque, values, blended))
