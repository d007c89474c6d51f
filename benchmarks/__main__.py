"""python -m benchmarks NAME [--sizes N,N] [--json FILE] [--figure FILE] [--quick]

Prints a table; --json writes its rows, as they come, and a description of the machine, --figure draws them where a
benchmark has a picture (scaling). Run nothing beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically

from .measure import Row, machine

BENCHES = (
    "decode",
    "exactness",
    "factors",
    "flicker",
    "flux_memory",
    "scaling",
    "seams",
    "settings",
    "start",
    "tiles",
    "transformer",
    "upscale",
)
"""Each is a module of this package with `run(quick: bool) -> Iterable[Row]`."""
SIZED = ("decode", "factors", "scaling", "settings", "transformer", "upscale")
"""Those whose `run` also takes `sizes`, in the unit of their tables."""
log = logging.getLogger("benchmarks")


def table(rows: Sequence[Row]) -> str:
    """Rows as Markdown; columns that no row uses are left out."""
    dicts = [{k: v for k, v in row.as_dict().items() if k != "bench"} for row in rows]
    columns = list(dict.fromkeys(name for row in dicts for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in dicts]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Write rows and machine; an older file stays whole until the new one is there."""
    text = json.dumps({"machine": machine(), "rows": [row.as_dict() for row in rows]}, indent=1) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if min(sizes) < 1:
        raise ValueError(text)
    return sizes


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--figure", type=Path, help="draw the rows there (.svg, .png)")
    parser.add_argument("--quick", action="store_true", help="small sizes, less than 50 seconds")
    parser.add_argument("--sizes", type=_sizes, default=(), help=f"instead of the usual ones, for {', '.join(SIZED)}")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    bench = importlib.import_module(f".{options.name}", __package__)
    if options.figure is not None and not hasattr(bench, "draw"):
        parser.error(f"--figure: {options.name} has no picture")
    if options.sizes and options.name not in SIZED:
        parser.error(f"--sizes: {options.name} has none")
    given = {"sizes": options.sizes} if options.sizes else {}
    rows: list[Row] = []
    try:
        for row in bench.run(quick=options.quick, **given):
            rows.append(row)
            if options.json is not None:
                write_json(options.json, rows)  # what was measured stays, whatever ends the run
    except AlloSR2Error as error:
        log.error("%s", error)
        return 1
    sys.stdout.write(table(rows) + "\n")
    if options.figure is not None:
        bench.draw(rows, options.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
