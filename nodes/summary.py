"""What was done to a picture, in words: shown on the nodes after a run."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from ..allosr2_core.layout import Layout
from ..allosr2_core.start_time import rebuilt


@dataclass(frozen=True)
class Work:
    """The step of a batch."""

    times: tuple[float, ...]
    """t* of each picture."""
    t_star: float
    """The checkpoint's calibrated time, by which times have their words."""
    tiles: int
    """Of one picture."""
    dtype: str
    """What the model computed in."""
    seconds: float
    """With encoding and estimating."""

    def text(self, layout: Layout, decode: float | None = None) -> str:
        """What a node shows, in the two lines it has room for. decode: its seconds."""
        tiles = "1 tile" if self.tiles == 1 else f"{self.tiles} tiles"
        took = f"step {_duration(self.seconds)}" + ("" if decode is None else f", decode {_duration(decode)}")
        lines = f"{_sizes(layout)}, {tiles}, {self.dtype}", f"{times(self.times, self.t_star)}, {took}"
        return ";\n".join(lines)  # some front ends show a line break as a space


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


def times(values: Tensor | tuple[float, ...], t_star: float) -> str:
    """Times t* and a word: "t 0.31, some is rebuilt", or "t 0.22 to 0.45, some to much is rebuilt" for a batch."""
    ends = [float(min(values)), float(max(values))]
    numbers = " to ".join(dict.fromkeys(f"{value:.3g}" for value in ends))
    words = " to ".join(dict.fromkeys(rebuilt(value, t_star) for value in ends))
    return f"t {numbers}, {words} is rebuilt"


def _sizes(layout: Layout) -> str:
    """From which size to which: "150 x 90 to 600 x 360 px (4x)"."""
    factor = (layout.height * layout.width / (layout.input_height * layout.input_width)) ** 0.5
    note = f"{factor:.3g}x, smaller than the input" if factor < 1 else f"{factor:.3g}x"
    return f"{layout.input_width} x {layout.input_height} to {layout.width} x {layout.height} px ({note})"


def _duration(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"
