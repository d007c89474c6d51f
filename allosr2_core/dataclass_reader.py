"""Frozen dataclasses from tables, as JSON and TOML give them: exactly their fields, each of its type and in its range.

    depth: Annotated[int, Range(0, 128)]

states a range beside its field; of a tuple, `Range` is that of each number and `Length` how many there may be.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from .errors import AlloSR2Error, shown

D = TypeVar("D")
_LONGEST_KEY = 100
OnUnknown = Callable[[str, str], None]
"""Called with the path of a table and a key that is none of its fields, which is refused next: it may say more."""


@dataclass(frozen=True)
class Range:
    """Of a number: from `least` to `most`, both allowed; `above`: more than `least`."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False

    def allows(self, value: float) -> bool:
        """Whether a number lies within; NaN never does."""
        return (self.least < value if self.above else self.least <= value) and value <= self.most

    def __str__(self) -> str:
        """The range in words, as in "expected a number of at least 1"."""
        least = f"{'above' if self.above else 'of at least'} {self.least:g}" if self.least > -math.inf else ""
        most = f"of at most {self.most:g}" if self.most < math.inf else ""
        return " and ".join(part for part in (least, most) if part)


@dataclass(frozen=True)
class Length:
    """Of a tuple: how many values it may have."""

    least: int
    most: int


def read_dataclass(kind: type[D], table: object, where: str, on_unknown: OnUnknown | None = None) -> D:
    """An instance of `kind` from a table that states every field, also those with a default, and nothing else.

    Nested dataclasses are tables in it, tuples are lists. Whole numbers are taken where a float is meant; floats must
    be finite. Ranges are those of `Range` and `Length`. Annotations other than these, `Literal` for one, are the
    dataclass's own business.

    Args:
        kind: a dataclass.
        table: a mapping.
        where: the path that messages begin with, e.g. a file's name.
        on_unknown: see `OnUnknown`.

    Raises:
        AlloSR2Error: a key that is unknown or missing, a value of another type, or one that `kind` refuses.
    """
    if not isinstance(table, Mapping):
        raise AlloSR2Error(f"{where}: expected a table; got {shown(table)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in names:
            if on_unknown is not None:
                on_unknown(where, key)
            near = difflib.get_close_matches(str(key)[:_LONGEST_KEY], names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"
            raise AlloSR2Error(f"{where}: unknown key {shown(key)}; {hint}")
    missing = [name for name in names if name not in table]
    if missing:
        raise AlloSR2Error(f"{where}: missing {', '.join(missing)}")
    values = {name: _value(hints[name], table[name], f"{where}.{name}", on_unknown) for name in names}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise AlloSR2Error(f"{where}: {error}") from error


def check_fields(instance: object) -> None:
    """AlloSR2Error, with the field's name, where a dataclass made in code holds what reading it would refuse."""
    hints = typing.get_type_hints(type(instance), include_extras=True)
    for field in dataclasses.fields(instance):  # type: ignore[arg-type]
        _value(hints[field.name], getattr(instance, field.name), field.name, None)


def _value(hint: Any, value: Any, where: str, on_unknown: OnUnknown | None) -> Any:
    """A value as its annotation asks for it."""
    if typing.get_origin(hint) is Annotated:
        hint, *limits = typing.get_args(hint)
        read = _value(hint, value, where, on_unknown)
        for limit in limits:
            _check(limit, read, where)
        return read
    if dataclasses.is_dataclass(hint):
        return read_dataclass(hint, value, where, on_unknown)  # type: ignore[arg-type]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType and types.NoneType in arguments:
        (hint,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _value(hint, value, where, on_unknown)
    if origin is tuple:
        return _tuple(arguments, value, where, on_unknown)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise AlloSR2Error(f"{where}: expected a table; got {shown(value)}")
        return {key: _value(arguments[1], part, f"{where}.{key}", on_unknown) for key, part in value.items()}
    return _plain(hint, value, where) if hint in (bool, int, float, str) else value


def _tuple(kinds: tuple[Any, ...], value: Any, where: str, on_unknown: OnUnknown | None) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise AlloSR2Error(f"{where}: expected a list; got {shown(value)}")
    kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
    if len(kinds) != len(value):
        raise AlloSR2Error(f"{where}: expected {len(kinds)} values; got {shown(value)}")
    return tuple(_value(kind, part, where, on_unknown) for kind, part in zip(kinds, value, strict=True))


def _plain(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise AlloSR2Error(f"{where}: expected {kind.__name__}; got {shown(value)}")
    try:
        read = kind(value)
    except OverflowError:  # a whole number beyond what floats reach
        read = math.inf
    if kind is float and not math.isfinite(read):
        raise AlloSR2Error(f"{where}: expected a finite number; got {shown(value)}")
    return read


def _check(limit: object, value: Any, where: str) -> None:
    """AlloSR2Error for a number or a tuple's numbers out of their range, or for too many of them; None is in it."""
    if isinstance(limit, Length) and not limit.least <= len(value) <= limit.most:
        raise AlloSR2Error(f"{where}: expected {limit.least} to {limit.most} values; got {len(value)}: {shown(value)}")
    if isinstance(limit, Range):
        for part in value if isinstance(value, tuple) else (value,):
            if part is not None and not limit.allows(part):
                raise AlloSR2Error(f"{where}: expected a number {limit}; got {shown(part)}")
