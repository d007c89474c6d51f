"""`UpscaleOptions` as arguments of a command line."""

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import MOST_SHOWN, cut, one_line
from ..options import DEFAULTS, OPTIONS, Option, UpscaleOptions, number_type

SIZES = {"scale", "long_edge"}


def add_options(parser: ArgumentParser, names: Sequence[str] = tuple(OPTIONS)) -> None:
    """One argument for each of the named fields of `UpscaleOptions`; a size is given in one way only."""
    size = parser.add_mutually_exclusive_group() if set(names) & SIZES else parser
    for name in names:
        group = size if name in SIZES else parser
        group.add_argument(f"--{name.replace('_', '-')}", **_argument(name, OPTIONS[name], number_type(name)))


def options_of(arguments: Namespace, **given: Any) -> UpscaleOptions:  # noqa: ANN401 - values of any field
    """The parsed options; `given`: fields that were no arguments."""
    values = {name: value for name, value in vars(arguments).items() if name in OPTIONS} | given
    if values.get("scale") is None and values.get("long_edge") is None:
        values["scale"] = DEFAULTS["scale"]
    return UpscaleOptions(**values)


def _argument(name: str, option: Option, kind: type) -> dict[str, Any]:
    """What `add_argument` is told of an option."""
    default = DEFAULTS[name]
    note = "" if default is None or kind is bool else f" (default {default})"
    said = {"help": (option.help + note).replace("%", "%%")}
    if kind is bool:
        return said | {"action": "store_true"}
    if name == "scale":  # None tells a size that was given from one that was not
        default = None
    if kind is str:
        return said | {"default": default, "choices": option.choices}
    parse: Callable[[str], Any] = partial(_parsed, option, kind)
    return said | {"default": default, "type": parse, "metavar": option.unit or None}


def _parsed(option: Option, kind: type, text: str) -> Any:  # noqa: ANN401 - a number or a word
    """A value of an option; argparse says what is wrong with another."""
    if text in option.choices:
        return text
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not option.allows(value):
        what = "whole number" if kind is int else "number"
        words = "".join(f", or {word!r}" for word in option.choices)
        raise argparse.ArgumentTypeError(
            f"expected a {what} {option.limits}{words}; got {cut(one_line(text), MOST_SHOWN)}"
        )
    return value
