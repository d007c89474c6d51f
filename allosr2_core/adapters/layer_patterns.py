r"""Patterns of layer names, as configurations of adapters have them: a part of Python's regular expressions.

    letters, digits, _ -   themselves              (a|b)  (?:a|b)       one of these, also at the top: a|b
    \.  \-  .              a dot, a -, any         [02]  [a-z]          one of these characters
    x?  (a|b)?             this or nothing         \d  \d+  .*  [0-9]+  one digit, runs
    ^ at the start and $ at the end                nothing: what fits is a whole name anyway

Files come from strangers, and a regular expression can take longer than anybody waits. Here the time is bounded by the
length of the pattern times that of the name squared, whatever they are.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import AlloSR2Error, shown

MOST_CHARACTERS = 512
"""Of a pattern, and of a name that is compared with one."""
MOST_PATTERNS = 4096
_DEEPEST = 16
_PLAIN = frozenset(string.ascii_letters + string.digits + "_-")
_ESCAPED = frozenset(".-_")
_DIGITS = frozenset(string.digits)


@dataclass(frozen=True)
class _One:
    """One character out of a set, or any; `least` to 1, or any number of them, where `more`."""

    characters: frozenset[str] | None
    least: int = 1
    more: bool = False

    def ends(self, name: str, starts: set[int]) -> set[int]:
        found = set(starts) if self.least == 0 else set[int]()
        step = starts
        while step := {at + 1 for at in step if at < len(name) and self._has(name[at])} - found:
            found |= step
            if not self.more:
                break
        return found

    def _has(self, character: str) -> bool:
        return self.characters is None or character in self.characters


@dataclass(frozen=True)
class _Either:
    """One of some sequences."""

    ways: tuple[tuple[_One | _Either, ...], ...]

    def ends(self, name: str, starts: set[int]) -> set[int]:
        found = set[int]()
        for way in self.ways:
            at = starts
            for part in way:
                if not (at := part.ends(name, at)):
                    break
            found |= at
        return found


class LayerPattern:
    """One pattern. AlloSR2Error for what is none, with the pattern in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._at, self._depth = 0, 0
        if len(text) > MOST_CHARACTERS:
            raise AlloSR2Error(f"expected a pattern of at most {MOST_CHARACTERS} characters, got {shown(text)}")
        self.exact = text.startswith("^")
        """Whether it says where a name begins: where ends of names count too, it then fits whole ones only."""
        self._text = text.removeprefix("^")
        if self._text.endswith("$"):
            self._text = self._text[:-1]
        plain = self._text.replace(r"\.", "")
        self._name = self._text.replace(r"\.", ".") if all(part in _PLAIN for part in plain) else None
        self._whole = None if self._name is not None else self._either()
        if self._whole is not None and self._at < len(self._text):
            raise self._refused()

    def fits(self, name: str) -> bool:
        """Whether it fits a whole name; one that is too long it never does."""
        if self._name is not None or self._whole is None:
            return name == self._name
        return len(name) <= MOST_CHARACTERS and len(name) in self._whole.ends(name, {0})

    def fits_end(self, name: str) -> bool:
        """Whether it fits a whole name or, unless it begins with ^, what follows one of its dots."""
        starts = [0] if self.exact else [0, *(at + 1 for at, part in enumerate(name) if part == ".")]
        return any(self.fits(name[start:]) for start in starts)

    def _either(self) -> _Either:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._refused()
        ways = [self._sequence()]
        while self._next() == "|":
            self._at += 1
            ways.append(self._sequence())
        self._depth -= 1
        return _Either(tuple(ways))

    def _sequence(self) -> tuple[_One | _Either, ...]:
        parts: list[_One | _Either] = []
        while self._next() not in ("", "|", ")"):
            parts.append(self._part())
        return tuple(parts)

    def _part(self) -> _One | _Either:
        if self._next() == "(":
            self._at += 3 if self._text.startswith("(?:", self._at) else 1
            group = self._either()
            if self._next() != ")":
                raise self._refused()
            self._at += 1
            if self._next() == "?":
                self._at += 1
                group = _Either((*group.ways, ()))
            if self._next() in ("*", "+", "?", "{"):
                raise self._refused()
            return group
        characters = self._characters()
        sign = self._next()
        if sign and sign in "*+?":
            self._at += 1
        if self._next() in ("*", "+", "?", "{") or sign == "{":
            raise self._refused()
        return _One(characters, 0 if sign in ("*", "?") else 1, sign in ("*", "+"))

    def _characters(self) -> frozenset[str] | None:
        """The set that the next character may be of, None for any."""
        character = self._next()
        self._at += 1
        if character in _PLAIN:
            return frozenset(character)
        if character == ".":
            return None
        if character == "\\":
            escaped = self._next()
            self._at += 1
            if escaped == "d":
                return _DIGITS
            if escaped in _ESCAPED:
                return frozenset(escaped)
        if character == "[":
            return self._class()
        raise self._refused()

    def _class(self) -> frozenset[str]:
        end = self._text.find("]", self._at)
        inside = self._text[self._at : end] if end > self._at else ""
        self._at = end + 1
        found = set[str]()
        while inside:
            if len(inside) >= 3 and inside[1] == "-" and inside[0] <= inside[2] and {inside[0], inside[2]} <= _PLAIN:
                found |= {chr(code) for code in range(ord(inside[0]), ord(inside[2]) + 1)}
                inside = inside[3:]
            elif inside[0] in _PLAIN - {"-"} or inside[0] == ".":
                found.add(inside[0])
                inside = inside[1:]
            else:
                raise self._refused()
        if not found:
            raise self._refused()
        return frozenset(found)

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _refused(self) -> AlloSR2Error:
        return AlloSR2Error(
            rf"expected a regular expression of names, digits (\d+), groups (a|b) and .*, got {shown(self.text)}"
        )


def read_patterns(texts: Iterable[str]) -> tuple[LayerPattern, ...]:
    """Patterns from texts; AlloSR2Error for one that is none, and for too many."""
    listed: Sequence[str] = list(texts)
    if len(listed) > MOST_PATTERNS:
        raise AlloSR2Error(f"expected at most {MOST_PATTERNS} patterns, got {len(listed)}")
    return tuple(LayerPattern(text) for text in listed)
