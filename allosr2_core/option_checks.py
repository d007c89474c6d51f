"""Options of an upscale that are out of their range, found before any work, whichever part would come to them."""

from __future__ import annotations

from .errors import AlloSR2Error, shown
from .image.color import check_method
from .options import OPTIONS, T_WORDS, UpscaleOptions
from .options import check as check_option

MOST_REALISM = 100.0
"""Far beyond it nothing of a picture is left, and values are no numbers any more."""


def check_realism(value: float) -> None:
    """AlloSR2Error for one out of its range, or so large that nothing of a picture is left."""
    check_option("realism", value)
    if value > MOST_REALISM:
        raise AlloSR2Error(f"expected realism to be a number of at most {MOST_REALISM:g}; got {value:g}")


def check_options(options: UpscaleOptions) -> None:
    """AlloSR2Error for a value out of its option's range, whichever part would come to it."""
    check_method(options.color)
    if isinstance(options.t, str) and options.t not in T_WORDS:
        raise AlloSR2Error(f"expected t to be a number or one of {', '.join(T_WORDS)}; got {shown(options.t)}")
    for name in OPTIONS:
        value = getattr(options, name)
        if isinstance(value, (int, float)):
            check_option(name, value)
    check_realism(options.realism)
