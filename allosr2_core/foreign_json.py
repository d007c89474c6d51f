"""JSON from strangers: what a reader here can be handed, and nothing that takes it apart."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .errors import AlloSR2Error, cut, one_line, shown

MOST_CHARACTERS = 1 << 20
"""Of a text; configurations have a few thousand."""
DEEPEST = 200
"""How many lists and objects may lie in each other."""
LONGEST_NUMBER = 40
"""Digits of a whole number."""
_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)


def parse_json(text: str, where: str) -> Any:  # noqa: ANN401 - whatever the text says
    """The value of a JSON text. `where` begins the messages, a file's name for one.

    Raises:
        AlloSR2Error: it is no JSON, or has more than MOST_CHARACTERS, a nesting deeper than DEEPEST, a key twice in one
            object, a whole number of more than LONGEST_NUMBER digits, or a number that is not finite (NaN, 1e999).
    """
    if len(text) > MOST_CHARACTERS:
        raise AlloSR2Error(f"{where}: expected JSON of at most {MOST_CHARACTERS} characters; got {len(text)}")
    _check_depth(text, where)

    def whole(digits: str) -> int:
        if len(digits) > LONGEST_NUMBER:
            raise AlloSR2Error(f"{where}: expected numbers of at most {LONGEST_NUMBER} digits; got {cut(digits, 20)}")
        return int(digits)

    def fraction(digits: str) -> float:
        if not math.isfinite(value := float(digits)):
            raise AlloSR2Error(f"{where}: expected finite numbers; got {cut(digits, 20)}")
        return value

    def refuse(name: str) -> float:
        raise AlloSR2Error(f"{where}: expected finite numbers; got {name}")

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise AlloSR2Error(f"{where}: expected each key once in an object; {shown(key)} stands twice")
            found[key] = value
        return found

    try:
        return json.loads(text, parse_int=whole, parse_float=fraction, parse_constant=refuse, object_pairs_hook=table)
    except json.JSONDecodeError as error:
        raise AlloSR2Error(f"{where}: expected JSON; {one_line(str(error))}") from error


def _check_depth(text: str, where: str) -> None:
    depth, quoted = 0, False
    for mark in _MARKS.findall(text):
        if mark == '"':
            quoted = not quoted
        elif not quoted:
            depth += mark in "[{"
            depth -= mark in "]}"
            if depth > DEEPEST:
                raise AlloSR2Error(f"{where}: expected JSON nested at most {DEEPEST} deep; got more")
