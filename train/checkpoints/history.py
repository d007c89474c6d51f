"""The record of a training, which holds the records of the trainings before it: each of them told once.

Two checkpoints that are mixed have most of their history in common, and so have the two that each of them was mixed
from. Told in full each time, it doubles with every mixing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]
EARLIER = ("continues", "mixed")
"""Keys of a record under which earlier ones are listed."""
ID, WEIGHT = "id", "weight"
"""Keys that are no part of what was trained: its name within the record, and its share in a mean of weights."""


def told_once(record: Record) -> dict[str, Any]:
    """The same record, in which an earlier training that occurs again is {"id": of the one that is told in full}.

    A record that was told so before may be part of it. Weights stand beside the id.
    """
    again = set[str]()
    _told(record, set(), set(), again)
    return _told(record, again, set(), set())


def identity(record: Record) -> str:
    """12 hexadecimal digits of the sha256 of what was trained; the same whether it is told in full or by its id."""
    if _is_id(record):
        return str(record[ID])
    own = {key: value for key, value in record.items() if key not in (ID, WEIGHT)}
    for key in EARLIER:
        if key in own:
            own[key] = [[one.get(WEIGHT), identity(one)] if isinstance(one, dict) else one for one in own[key]]
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]


def _is_id(record: Record) -> bool:
    return ID in record and set(record) <= {ID, WEIGHT}


def _told(record: Record, named: set[str], told: set[str], again: set[str]) -> dict[str, Any]:
    """`named`: trainings that get an id; `told`: those told so far; `again`: those that occurred again."""
    result = dict(record)
    for key in EARLIER:
        if key in record:
            result[key] = [_one(one, named, told, again) if isinstance(one, dict) else one for one in record[key]]
    return result


def _one(record: Record, named: set[str], told: set[str], again: set[str]) -> dict[str, Any]:
    name = identity(record)
    if name in told or _is_id(record):
        again.add(name)
        return {ID: name} | ({WEIGHT: record[WEIGHT]} if WEIGHT in record else {})
    told.add(name)
    full = {key: value for key, value in record.items() if key != ID} | ({ID: name} if name in named else {})
    return _told(full, named, told, again)
