"""What argparse makes of the command line's whole numbers."""

import argparse
from collections.abc import Callable

from ..errors import MOST_SHOWN, cut, one_line


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A whole number within limits."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            limits = f"{least} or more" if most is None else f"{least} to {most}"
            given = cut(one_line(text), MOST_SHOWN)
            raise argparse.ArgumentTypeError(f"expected a whole number of {limits}, got {given}")
        return value

    return number
