"""kill -9 of the trainer at a few moments; `python -m tests.reliability --full --suite trainer` tries many."""

import os

import pytest

from tests.reliability import trainer


@pytest.mark.skipif(os.name != "posix", reason="runs on POSIX: kills processes")
def test_a_killed_run_goes_on_as_if_nothing_had_been() -> None:
    counted = trainer.killed(trainer.FEW, seed=2)
    assert (counted.tried, counted.failed, counted.lost) == (trainer.FEW, 0, 0), "\n".join(counted.said)


def test_another_result_is_told_apart() -> None:
    assert trainer._same({"a": [1.0]}, {"a": [1.0]})
    assert not trainer._same({"a": [1.0]}, {"a": [1.5]})
