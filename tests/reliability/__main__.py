"""Counts what is borne: `python -m tests.reliability [--full] [--suite NAME ...] [--json FILE]`.

Prints the rows as JSON, a line for each case that did not end as it should to standard error; the exit code is 1 where
there is one. `--case NAME NUMBER` works on one case of a suite in this process, with its traceback.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from .rows import merge, row
from .runner import Worker, count
from .suites import Cases, load


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    suites = load()
    parser.add_argument("--full", action="store_true", help="thousands of cases, about an hour; else a minute")
    parser.add_argument("--suite", action="append", choices=tuple(suites), help="one of them, or several")
    parser.add_argument("--json", type=Path, metavar="FILE", help="merge the rows into it; FILE.md gets the table")
    parser.add_argument("--case", nargs=2, metavar=("NAME", "NUMBER"), help="one case, here")
    options = parser.parse_args()
    if options.case:
        suite = suites[options.case[0]]
        assert isinstance(suite, Cases)
        with tempfile.TemporaryDirectory() as folder:
            suite.case(int(options.case[1]), Path(folder))()
        return 0

    def tell(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    rows = []
    with Worker() as worker:
        for name in options.suite or suites:
            suite = suites[name]
            if isinstance(suite, Cases):
                counted = count(worker, name, range(suite.full if options.full else suite.quick), tell)
            else:
                counted = suite(options.full)
                for line in counted.said:
                    tell(line)
            command = f"python -m tests.reliability{' --full' if options.full else ''} --suite {name}"
            rows.append(row(name, counted, command))
            if options.json is not None:  # after each, they take long
                merge(options.json, rows[-1:])
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    return int(any(each["failed"] or each["lost"] for each in rows))


if __name__ == "__main__":
    sys.exit(main())
