"""JSON out of files: what would take a reader apart is refused by name."""

import json
import time

import pytest

from allosr2_core.errors import AlloSR2Error
from allosr2_core.foreign_json import DEEPEST, parse_json


def test_ordinary_json_is_read() -> None:
    value = {"a": [1, 2.5, -3e-5, True, None, 'x\n"[{'], "b": {"c": {}}, "n": 10**39}
    assert parse_json(json.dumps(value), "f") == value
    assert parse_json("[" * DEEPEST + "]" * DEEPEST, "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 1000 + "]" * 1000, "f: expected JSON nested at most 200 deep"),
        ('{"a":' * 100_000, "nested at most 200 deep"),
        ("9" * 5000, "f: expected numbers of at most 40 digits; got 99999999999999999..."),
        ("[1e400]", "f: expected finite numbers; got 1e400"),
        ('{"t": NaN}', "expected finite numbers; got NaN"),
        ('{"t": -Infinity}', "expected finite numbers; got -Infinity"),
        ('{"a": 1, "a": 2}', "f: expected each key once in an object; 'a' stands twice"),
        ('{"a": ', "f: expected JSON; Expecting value"),
        ("", "f: expected JSON"),
        (" " * (1 << 20) + "1", "f: expected JSON of at most 1048576 characters; got 1048577"),
        ('"' + '\\"' * 500_000, "expected JSON"),
        ('"\\ud800\n"', "expected JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_refused(text: str, message: str) -> None:
    started = time.process_time()
    with pytest.raises(AlloSR2Error) as caught:
        parse_json(text, "f")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200 and time.process_time() - started < 1.0
