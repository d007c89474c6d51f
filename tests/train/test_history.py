"""Records of trainings: what occurs twice is told once, and the same training has the same id however it is told."""

import json
from typing import Any

from train.checkpoints.history import identity, told_once


def run(steps: int, *earlier: dict[str, Any]) -> dict[str, Any]:
    return {"config": {"text": "x" * 500}, "steps": steps} | ({"continues": list(earlier)} if earlier else {})


def mean(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {"mixed": [{"weight": 0.75, **first}, {"weight": 0.25, **second}]}


def size(record: dict[str, Any]) -> int:
    return len(json.dumps(record))


def in_full(record: dict[str, Any], known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The record with every id replaced by what it stands for."""
    weight = {"weight": record["weight"]} if "weight" in record else {}
    if set(record) <= {"id", "weight"}:
        return known[record["id"]] | weight
    full = {k: v for k, v in record.items() if k not in ("id", "weight")}
    for key in ("continues", "mixed"):
        if key in full:
            full[key] = [in_full(one, known) for one in full[key]]
    if "id" in record:
        known[record["id"]] = full
    return full | weight


def test_what_two_have_in_common_is_told_once() -> None:
    base = run(1, run(0))
    mixed = mean(run(2, base), run(3, base))
    told = told_once(mixed)
    first, second = told["mixed"]
    assert (first["weight"], second["weight"]) == (0.75, 0.25)
    (common,), (again,) = first["continues"], second["continues"]
    assert common["steps"] == 1 and again == {"id": common["id"]}
    assert "id" not in first and "id" not in common["continues"][0]  # nothing else occurs twice
    assert in_full(told, {}) == mixed


def test_a_record_in_which_nothing_occurs_twice_stays_as_it_is() -> None:
    for record in (run(1), run(2, run(1, run(0))), mean(run(1), run(2)), {}):
        assert told_once(record) == record


def test_telling_it_again_changes_nothing() -> None:
    mixed = mean(run(2, run(1)), run(3, run(1)))
    once = told_once(mixed)
    assert told_once(once) == once and identity(once) == identity(mixed)


def test_mixing_again_and_again_grows_by_what_is_new_alone() -> None:
    checkpoint = full = run(0)
    sizes = []
    for number in range(1, 7):
        full = mean(run(10 * number, full), run(10 * number + 1, full))
        checkpoint = told_once(mean(run(10 * number, checkpoint), run(10 * number + 1, checkpoint)))
        sizes.append(size(checkpoint))
        assert in_full(checkpoint, {}) == full
    growth = [after - before for before, after in zip(sizes, sizes[1:], strict=False)]
    assert max(growth) - min(growth) < 100
    assert size(full) > 8 * sizes[-1]


def test_the_same_training_with_two_weights_is_one() -> None:
    told = told_once(mean(run(1), run(1)))
    assert told["mixed"][1] == {"weight": 0.25, "id": told["mixed"][0]["id"]}
