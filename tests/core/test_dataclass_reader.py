"""Tables become dataclasses, or an error says where and why not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from allosr2_core.dataclass_reader import Length, Range, check_fields, read_dataclass
from allosr2_core.errors import AlloSR2Error


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...]
    range: tuple[float, float]

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ValueError("expected a size; got none")


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner
    weights: dict[str, float]
    anything: Mapping[str, Any]
    ratio: float | None = 1.0


TABLE: dict[str, Any] = {
    "count": 1,
    "inner": {"sizes": [3, 4], "range": [0, 0.5]},
    "weights": {"a": 2},
    "anything": {"b": [1, "x"]},
    "ratio": None,
}


def test_a_table_becomes_what_it_describes() -> None:
    read = read_dataclass(Outer, TABLE, "file")
    assert read == Outer(1, Inner((3, 4), (0.0, 0.5)), {"a": 2.0}, {"b": [1, "x"]}, None)
    assert type(read.weights["a"]) is float and type(read.inner.range[0]) is float
    assert read_dataclass(Outer, TABLE | {"ratio": 3}, "file").ratio == 3.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": 1}, "file: unknown key 'counts'; did you mean 'count'?"),
        ({"zzz": 1}, "file: unknown key 'zzz'; known keys: count, inner, weights, anything, ratio"),
        ({"count": 1.0}, "file.count: expected int; got 1.0"),
        ({"count": True}, "file.count: expected int; got True"),
        ({"ratio": "x"}, "file.ratio: expected float; got 'x'"),
        ({"ratio": float("inf")}, "file.ratio: expected a finite number; got inf"),
        ({"inner": 5}, "file.inner: expected a table; got 5"),
        ({"anything": 5}, "file.anything: expected a table; got 5"),
        ({"weights": {"a": "x"}}, "file.weights.a: expected float; got 'x'"),
        ({"inner": {"sizes": [3, "4"], "range": [0, 1]}}, "file.inner.sizes: expected int; got '4'"),
        ({"inner": {"sizes": "34", "range": [0, 1]}}, "file.inner.sizes: expected a list; got '34'"),
        ({"inner": {"sizes": [3], "range": [0]}}, "file.inner.range: expected 2 values; got [0]"),
        ({"inner": {"sizes": [], "range": [0, 1]}}, "file.inner: expected a size; got none"),
        ({"inner": {"sizes": [3]}}, "file.inner: missing range"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_its_path(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AlloSR2Error) as refused:
        read_dataclass(Outer, TABLE | change, "file")
    assert str(refused.value) == message


def test_a_field_with_a_default_must_be_stated() -> None:
    with pytest.raises(AlloSR2Error, match="^file: missing ratio$"):
        read_dataclass(Outer, {key: value for key, value in TABLE.items() if key != "ratio"}, "file")


def test_a_caller_may_say_more_of_an_unknown_key() -> None:
    def told(where: str, key: str) -> None:
        if key == "old":
            raise AlloSR2Error(f"{where}: {key} is called sizes")

    with pytest.raises(AlloSR2Error, match=r"^file\.inner: old is called sizes$"):
        read_dataclass(Outer, TABLE | {"inner": {"old": 1}}, "file", told)
    with pytest.raises(AlloSR2Error, match="did you mean 'sizes'"):
        read_dataclass(Outer, TABLE | {"inner": {"size": 1}}, "file", told)


@dataclass(frozen=True)
class Ranged:
    depth: Annotated[int, Range(0, 128)]
    ratio: Annotated[float | None, Range(0, 4, above=True)]
    widths: Annotated[tuple[int, ...], Range(1, 99), Length(1, 3)]
    above: Annotated[float, Range(0, above=True)] = 1.0


RANGED: dict[str, Any] = {"depth": 0, "ratio": 4, "widths": [1, 99], "above": 1e300}


def test_ranges_stand_beside_the_fields() -> None:
    assert read_dataclass(Ranged, RANGED, "file") == Ranged(0, 4.0, (1, 99), 1e300)
    assert read_dataclass(Ranged, RANGED | {"ratio": None}, "file").ratio is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 129}, "file.depth: expected a number of at least 0 and of at most 128; got 129"),
        ({"depth": -1}, "of at least 0 and of at most 128; got -1"),
        ({"depth": 10**400}, "of at most 128; got an integer of 1329 bits"),
        ({"ratio": 0}, "file.ratio: expected a number above 0 and of at most 4; got 0.0"),
        ({"ratio": 10**400}, "file.ratio: expected a finite number; got an integer of 1329 bits"),
        ({"ratio": float("nan")}, "file.ratio: expected a finite number; got nan"),
        ({"widths": [1, 100]}, "file.widths: expected a number of at least 1 and of at most 99; got 100"),
        ({"widths": []}, "file.widths: expected 1 to 3 values; got 0: ()"),
        ({"widths": [1] * 10**6}, "file.widths: expected 1 to 3 values; got 1000000: (1, 1, "),
        ({"above": 0}, "file.above: expected a number above 0; got 0.0"),
        ({"x\ny" * 10**5: 1}, r"file: unknown key 'x\ny"),
        ({"depth": "z" * 10**6}, "file.depth: expected int; got 'zzz"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_out_of_range_are_refused_in_a_short_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AlloSR2Error) as refused:
        read_dataclass(Ranged, RANGED | change, "file")
    assert message in str(refused.value)
    assert len(str(refused.value)) < 250


def test_what_is_made_in_code_is_checked_when_asked() -> None:
    check_fields(Ranged(1, None, (3,)))
    with pytest.raises(AlloSR2Error, match="depth: expected a number of at least 0 and of at most 128; got 999"):
        check_fields(Ranged(999, None, (3,)))
