"""The table of results: how each is made, what it was, and what is said when it is not that any more."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .fingerprint import HUNDREDTHS, TOLERANCE, Fingerprint, fingerprint, sha256

RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Record:
    """What a result was."""

    source: str
    """sha256 of the values of the picture it was made of."""
    shape: tuple[int, ...]
    """Height, width, channels."""
    bits: int
    """A channel: 8 or 16."""
    sha256: Mapping[str, str]
    """Of its values, by the kind of machine (`arithmetic.kind_of_machine`)."""
    fingerprint: Fingerprint

    @classmethod
    def of(cls, source_HWC: np.ndarray, values_HWC: np.ndarray, kind: str) -> "Record":
        """A result made on a machine of this kind."""
        bits = 8 * values_HWC.dtype.itemsize
        return cls(sha256(source_HWC), values_HWC.shape, bits, {kind: sha256(values_HWC)}, fingerprint(values_HWC))

    def differences(self, other: "Record") -> list[str]:
        """What tells a result made here, with one hash, from the recorded one: nothing, or what is to be said."""
        if (self.shape, self.bits) != (other.shape, other.bits):
            return [f"expected {self.shape} at {self.bits} bits, got {other.shape} at {other.bits} bits"]
        apart = self.fingerprint.difference(other.fingerprint)
        found = [] if apart <= TOLERANCE else [f"cells differ by up to {apart:.2f} levels, {TOLERANCE} are allowed"]
        ((kind, digest),) = other.sha256.items()
        if kind in self.sha256 and self.sha256[kind] != digest:
            found.append(f"other values than recorded for this kind of machine ({kind}); cells within {apart:.4f}")
        return found


@dataclass(frozen=True)
class Row:
    """One result."""

    picture: Mapping[str, Any]
    """What it is made of: see `pictures.write_source`."""
    arguments: tuple[str, ...] | None = None
    """Options of `python -m allosr2_core upscale`; {mask} stands for the file of a mask."""
    workflow: str | None = None
    """Or the file of an example workflow, below its folder."""
    record: Record | None = None
    """None before it was made for the first time."""


@dataclass(frozen=True)
class Table:
    """Every result by name, and the kinds of machine they were made on."""

    rows: Mapping[str, Row]
    kinds: Mapping[str, str] = field(default_factory=dict)
    """What the machines were, by kind: for the reader only."""

    def with_record(self, name: str, record: Record, machine: str) -> "Table":
        """The table with a result made on a machine that was not in it, or with a result that changed.

        Of a result that changed the other machines' hashes go: they are of the old one.
        """
        row, ((kind, _),) = self.rows[name], record.sha256.items()
        old = row.record
        if old is not None and not old.differences(record):
            record = replace(old, sha256={**old.sha256, **record.sha256})
        rows = {**self.rows, name: replace(row, record=record)}
        return Table(rows, {**self.kinds, kind: self.kinds.get(kind, machine)})


def load(path: Path = RESULTS) -> Table:
    """Read a table."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Table({name: _row(**fields) for name, fields in document["results"].items()}, document["kinds"])


def save(table: Table, path: Path = RESULTS) -> None:
    """Write a table, the numbers of a channel in one line."""
    used = {kind for row in table.rows.values() if row.record for kind in row.record.sha256}
    kinds = {kind: machine for kind, machine in table.kinds.items() if kind in used}
    results = ",\n".join(f"{json.dumps(name)}: {_text(row)}" for name, row in table.rows.items())
    path.write_text(
        f'{{\n"kinds": {json.dumps(kinds, indent=1)},\n"results": {{\n{results}\n}}\n}}\n', encoding="utf-8"
    )


def _row(
    picture: Mapping[str, Any],
    arguments: list[str] | None = None,
    workflow: str | None = None,
    source: str = "",
    shape: tuple[int, ...] = (),
    bits: int = 8,
    sha256: Mapping[str, str] | None = None,
    mean: list[list[int]] | None = None,
    gradient: list[list[int]] | None = None,
) -> Row:
    record = None
    if sha256 is not None:
        cells = Fingerprint(np.array(mean) / HUNDREDTHS, np.array(gradient) / HUNDREDTHS)
        record = Record(source, tuple(shape), bits, sha256, cells)
    return Row(picture, None if arguments is None else tuple(arguments), workflow, record)


def _text(row: Row) -> str:
    """One row as JSON."""
    fields: dict[str, Any] = {"picture": row.picture}
    fields |= {"workflow": row.workflow} if row.arguments is None else {"arguments": row.arguments}
    record, numbers = row.record, {}
    if record is not None:
        fields |= {"source": record.source, "shape": record.shape, "bits": record.bits, "sha256": record.sha256}
        numbers = {"mean": record.fingerprint.mean, "gradient": record.fingerprint.gradient}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()]
    for name, means in numbers.items():
        channels = np.rint(means * HUNDREDTHS).astype(int).tolist()
        lines.append(f' "{name}": [\n  ' + ",\n  ".join(json.dumps(c, separators=(",", ":")) for c in channels) + "]")
    return "{\n" + ",\n".join(lines) + "\n}"
