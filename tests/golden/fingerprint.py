"""What is kept of a picture: its size, a hash of its values, and a fingerprint that other arithmetic hardly moves.

The fingerprint has two numbers for each cell of a CELLS x CELLS grid and each channel: the mean of the values, which
tells colours and brightness, and the mean absolute difference of neighbours, which tells detail. Both are in levels of
an 8-bit picture, also for deeper ones, and are kept in hundredths.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

CELLS = 8
"""Cells along either side, at most: a cell has at least one pixel."""
HUNDREDTHS = 100.0
TOLERANCE = 0.05
"""Levels by which a cell may differ on any machine; README.md says what was measured."""
_PNG, _DEPTH = b"\x89PNG", 24
"""How a PNG file begins, and where it says how many bits a channel has."""


@dataclass(frozen=True)
class Fingerprint:
    """A picture in a few hundred numbers."""

    mean: np.ndarray
    """(C, cells): mean value, levels."""
    gradient: np.ndarray
    """(C, cells): mean of |difference to the right| + |difference below|, levels."""

    def difference(self, other: "Fingerprint") -> float:
        """Levels by which two fingerprints of pictures of one size differ at most."""
        pairs = ((self.mean, other.mean), (self.gradient, other.gradient))
        return max(float(np.abs(one - two).max()) for one, two in pairs)


def read_values(path: Path) -> np.ndarray:
    """The values of a picture file, (H, W, C): uint8, or uint16 of a PNG file with 16 bits a channel."""
    head = path.read_bytes()[: _DEPTH + 1]
    if head.startswith(_PNG) and head[_DEPTH] == 16:  # Pillow reduces these to eight bits
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            values = frame.to_ndarray().astype(np.uint16)  # in this machine's byte order
    else:
        with Image.open(path) as picture:
            values = np.asarray(picture)
    return values if values.ndim == 3 else values[..., None]


def sha256(values_HWC: np.ndarray) -> str:
    """Of the values, row by row; 16-bit ones with the low byte first."""
    return hashlib.sha256(np.ascontiguousarray(values_HWC, values_HWC.dtype.newbyteorder("<")).tobytes()).hexdigest()


def fingerprint(values_HWC: np.ndarray) -> Fingerprint:
    """Of a picture as `read_values` gives it."""
    levels_HWC = values_HWC * (255.0 / np.iinfo(values_HWC.dtype).max)
    down, right = (np.abs(np.diff(levels_HWC, axis=axis, append=levels_HWC.take([-1], axis))) for axis in (0, 1))
    return Fingerprint(mean=_cells(levels_HWC), gradient=_cells(down + right))


def _cells(values_HWC: np.ndarray) -> np.ndarray:
    """Means over the cells, (C, cells)."""
    for axis in (0, 1):
        side = values_HWC.shape[axis]
        edges = np.linspace(0, side, min(CELLS, side) + 1).astype(int)
        sums = np.add.reduceat(values_HWC, edges[:-1], axis=axis)
        values_HWC = sums / np.diff(edges).reshape(-1, *(1,) * (2 - axis))
    return values_HWC.reshape(-1, values_HWC.shape[-1]).T
