"""Configurations out of TOML files with strict keys.

Every field must be present in the file; an unknown or missing key is an error that names it and the nearest known key.
Keys that older files lack have a neutral value (`former_names.ADDED`).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from allosr2_core.dataclass_reader import read_dataclass
from allosr2_core.errors import AlloSR2Error

from . import former_names
from .config import Config

D = TypeVar("D")
EXTENDS = "extends"
"""Names the file beside it that a configuration differs from."""


def load_config(path: Path) -> Config:
    """Read a TOML file, and the one it `extends`, from which only what differs is stated.

    AlloSR2Error on a missing file, a syntax error, or an unknown, missing or ill-typed key of the merged tables.
    """
    return from_table(Config, _merged_table(path, ()), where=path.name)


def _merged_table(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The file's table over that of the file it extends; `above` are the files that extend this one."""
    if path.resolve() in above:
        raise AlloSR2Error(f"{path.name}: expected to extend another file; it extends itself, directly or by others")
    table = _read_table(path)
    base = table.pop(EXTENDS, None)
    if base is None:
        return table
    if not isinstance(base, str) or not base:
        raise AlloSR2Error(f"{path.name}.{EXTENDS}: expected the name of a file; got {base!r}")
    return _over(_merged_table(path.parent / base, (*above, path.resolve())), table)


def _over(base: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """`table` over `base`, key by key and table by table; one of another `type` has nothing of the base's."""
    merged = dict(base)
    for key, value in table.items():
        old = base.get(key)
        same = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) == old.get("type")
        )
        merged[key] = _over(old, value) if same and isinstance(old, dict) else value
    return merged


def _read_table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AlloSR2Error(f"expected a configuration file at {path}; there is none") from None
    except OSError as error:
        raise AlloSR2Error(f"expected a configuration file at {path}; {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AlloSR2Error(f"expected TOML in {path}; {error}") from error


def from_table(kind: type[D], table: dict[str, Any], where: str) -> D:
    """Build a (nested) dataclass from a mapping, strictly; a key of an older configuration is told its new name, and
    what an older configuration lacks is what it was then.
    """
    if kind is Config:
        table = former_names.completed(table)
    return read_dataclass(kind, table, where, _say_what_it_is_called)


def _say_what_it_is_called(where: str, key: str) -> None:
    """AlloSR2Error for a key of an older configuration."""
    path = f"{where.partition('.toml')[2]}.{key}".strip(".")
    if path in former_names.KEYS:
        raise AlloSR2Error(f"{where}: {key!r} is called {former_names.KEYS[path]}")
    if path in former_names.GONE:
        raise AlloSR2Error(f"{where}: {key!r} is no setting; leave it out")
