"""What a number or a word of a table may be, stated beside its field: `steps: Annotated[int, Range(1)]`.

`dataclass_reader.read_dataclass` checks it, also inside: `tuple[Annotated[int, Range(1, 64)], ...]` is a list of such
numbers, and so is `Annotated[tuple[int, ...], Range(1, 64), Length(1, 8)]`, of 1 to 8 of them. `Annotated[float,
Range(0)] | None` may be left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """From `least` to `most`, both included; `above`: `least` itself is too little, `below`: `most` too much."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False
    multiple: int = 1
    """What a whole number must be a multiple of."""

    def allows(self, value: float) -> bool:
        """Whether a number is within."""
        enough = value > self.least if self.above else value >= self.least
        little = value < self.most if self.below else value <= self.most
        return enough and little and (self.multiple == 1 or value % self.multiple == 0)

    def __str__(self) -> str:
        parts = []
        if self.least > -math.inf:
            parts.append(f"above {self.least:g}" if self.above else f"at least {self.least:g}")
        if self.most < math.inf:
            parts.append(f"below {self.most:g}" if self.below else f"at most {self.most:g}")
        if self.multiple > 1:
            parts.append(f"a multiple of {self.multiple}")
        return " and ".join(parts) or "a number"


@dataclass(frozen=True)
class Choices:
    """One of these words."""

    words: tuple[str, ...]

    def allows(self, value: object) -> bool:
        """Whether it is one of them."""
        return value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(map(repr, self.words))


@dataclass(frozen=True)
class Length:
    """How many values a tuple may have."""

    least: int
    most: int

    def allows(self, values: tuple[object, ...]) -> bool:
        """Whether there are as many."""
        return self.least <= len(values) <= self.most

    def __str__(self) -> str:
        return f"{self.least} to {self.most} values"
