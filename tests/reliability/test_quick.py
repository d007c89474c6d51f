"""The quick size of every suite of cases: nothing fails, nothing is lost."""

import json
import mmap
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import rows
from .runner import Worker, count
from .suites import Cases, Count, Limits, Lost, load
from .worker import work

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


def idle(case: object) -> None:
    """A case that ends as it should."""


def wrong(case: object) -> None:
    raise ZeroDivisionError("not this one")


def slow(case: object) -> None:
    until = time.process_time() + 0.4
    while time.process_time() < until:
        pass


def large(case: object) -> None:
    with mmap.mmap(-1, 1 << 27) as pages:  # of its own: an allocation may lie in memory that was there before
        for first in range(0, len(pages), mmap.PAGESIZE):
            pages[first] = 1


def gone(case: object) -> None:
    raise Lost("a file is gone")


@pytest.mark.parametrize(
    ("attempt", "answer"),
    [
        (idle, ("ok", "MiB")),
        (wrong, ("failed", "ZeroDivisionError: not this one")),
        (slow, ("failed", r"took 0\.[4-9] s")),
        (large, ("failed", "took 1[0-9]{2} MiB")),
        (gone, ("lost", "a file is gone")),
    ],
)
def test_what_a_case_does_is_noticed(attempt: Callable[[object], None], answer: tuple[str, str]) -> None:
    found = work(lambda number, folder: lambda: attempt(number), 0, Limits(seconds=0.2, mib=64.0))
    ((kind, why),) = found.items()
    assert kind == answer[0] and re.search(answer[1], why), found


def test_a_case_that_kills_its_process_is_lost_and_the_next_one_is_not() -> None:
    with Worker() as worker:
        worker.process.kill()
        worker.process.wait()
        counted = count(worker, "inputs", range(2), lambda line: None)
    assert (counted.tried, counted.failed, counted.lost) == (2, 0, 1)


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


def test_the_document_has_the_counts() -> None:
    path = REPOSITORY / "docs" / "reliability.json"
    document = path.with_suffix(".md").read_text(encoding="utf-8")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert rows.with_table(document, found) == document
    assert {each["name"] for each in found} >= set(SUITES)
    assert all(each["failed"] == each["lost"] == 0 and each["tried"] >= 200 for each in found if each["name"] in SUITES)
