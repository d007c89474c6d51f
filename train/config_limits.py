"""What numbers of a training configuration may be, stated beside their fields (`allosr2_core.ranges`)."""

from __future__ import annotations

from typing import Annotated

from allosr2_core.errors import AlloSR2Error
from allosr2_core.ranges import Range

Count = Annotated[int, Range(1)]
CountOrNone = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Time = Annotated[float, Range(0, 1, above=True)]
"""Of the flow, between data (0) and noise (1)."""
Side = Annotated[int, Range(16, multiple=16)]
"""Of a crop, px."""


def check_order(name: str, values: tuple[float, float]) -> None:
    """AlloSR2Error where a range ends below its start."""
    if values[0] > values[1]:
        raise AlloSR2Error(f"{name}: expected the smaller number first; got {list(values)}")
