"""What argparse makes of the command line's numbers."""

import argparse
import math
from collections.abc import Callable

T_WORDS = ("predicted", "calibrated")


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def not_negative(text: str) -> float:
    """A finite number of 0 or more."""
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number of 0 or more, got {text}")
    return value


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A whole number within limits."""

    def number(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            limits = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"expected a whole number of {limits}, got {text}")
        return value

    return number


def time(text: str) -> float | str:
    """Where on the flow to start: a number between 0 and 1, or one of T_WORDS."""
    if text in T_WORDS:
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, {' or '.join(T_WORDS)}, got {text}")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text}")
    return value
