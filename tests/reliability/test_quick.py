"""The quick size of every suite of cases: nothing fails, nothing is lost."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import rows
from .runner import Worker, count
from .suites import Cases, Count, load

REPOSITORY = Path(__file__).resolve().parents[2]
SUITES = {name: suite for name, suite in load().items() if isinstance(suite, Cases)}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as started:
        yield started


@pytest.mark.parametrize("name", SUITES)
def test_nothing_fails_and_nothing_is_lost(worker: Worker, name: str) -> None:
    counted = count(worker, name, range(SUITES[name].quick), lambda line: None)
    assert counted.tried == SUITES[name].quick
    assert (counted.failed, counted.lost) == (0, 0), "\n".join(counted.said)


def test_rows_of_a_suite_that_ran_again_take_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.with_suffix(".md").write_text(f"Text.\n\n{rows.FIRST}\nold\n{rows.LAST}\n\nMore.\n")
    rows.merge(path, [rows.row("a", Count(3, 1, 0), "c a"), rows.row("b", Count(2), "c b")])
    rows.merge(path, [rows.row("a", Count(5), "c a")])
    assert [(each["name"], each["tried"], each["failed"]) for each in json.loads(path.read_text())] == [
        ("a", 5, 0),
        ("b", 2, 0),
    ]
    text = path.with_suffix(".md").read_text()
    assert text.startswith("Text.\n\n") and text.endswith("\n\nMore.\n") and "| a | 5 | 0 | 0 | `c a` |" in text
    assert "old" not in text
