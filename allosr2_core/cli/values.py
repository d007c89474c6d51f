"""What argparse makes of the command line's whole numbers."""

import argparse
from collections.abc import Callable


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A whole number within limits."""

    def number(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            limits = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"expected a whole number of {limits}, got {text}")
        return value

    return number
