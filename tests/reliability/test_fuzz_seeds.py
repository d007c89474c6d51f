"""What fuzzing found to reach new code ends in a value or in one line, quickly."""

import time
from pathlib import Path

from .fuzz import READERS, seeds, target


def test_the_kept_inputs_end_as_they_should(tmp_path: Path) -> None:
    run, found = target(tmp_path), seeds()
    assert {data[0] % READERS for data in found if data} == set(range(READERS))
    for data in found:
        started = time.process_time()
        run(data)
        assert time.process_time() - started < 2.0, data
