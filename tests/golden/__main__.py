"""Make the results again, say which changed and by how much, and, if asked to, write the table.

    python -m tests.golden                 # all of them, nothing is written
    python -m tests.golden factor-2 mask   # some
    python -m tests.golden --write         # the table gets what changed, or this kind of machine

Exit code: 0 nothing changed, or it was written; 1 something changed; 2 a wrong usage.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from .arithmetic import describe_machine, kind_of_machine, kind_of_new_process
from .commands import THREADS
from .commands import make as make_by_command
from .pictures import REPOSITORY
from .table import RESULTS, Record, Row, load, save


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="results to make (default: all)")
    parser.add_argument("--write", action="store_true", help="write the table")
    parser.add_argument("--table", type=Path, default=RESULTS, help="the table (default: %(default)s)")
    options = parser.parse_args(arguments)
    table = load(options.table)
    if unknown := [name for name in options.names if name not in table.rows]:
        parser.error(f"expected names of results ({', '.join(table.rows)}); got {', '.join(unknown)}")
    rows = {name: row for name, row in table.rows.items() if not options.names or name in options.names}
    machine, changed = describe_machine(), False
    for name, found in _make(rows):
        recorded = rows[name].record
        differences = ["not recorded yet"] if recorded is None else recorded.differences(found)
        if recorded is not None and recorded.source != found.source:
            differences.append("made of another picture")
        changed = changed or bool(differences)
        sys.stdout.write(f"{name}: {'; '.join(differences) or _agreement(recorded, found)}\n")
        table = table.with_record(name, found, machine)
    if options.write:
        save(table, options.table)
        return 0
    if changed:
        sys.stdout.write("Nothing was written; --write writes.\n")
    return int(changed)


def _agreement(recorded: Record | None, found: Record) -> str:
    """What is said of a result that did not change."""
    (kind,) = found.sha256
    if recorded is None or kind in recorded.sha256:
        return "as recorded, to the bit"
    return f"as recorded, to {recorded.fingerprint.difference(found.fingerprint):.4f} levels; a new kind of machine"


def _make(rows: dict[str, Row]) -> Iterator[tuple[str, Record]]:
    kind = kind_of_machine(THREADS)
    for name, row in rows.items():
        if row.workflow is None:
            with tempfile.TemporaryDirectory() as folder:
                yield name, make_by_command(row, Path(folder), kind)
    workflows = {name: row for name, row in rows.items() if row.workflow is not None}
    if not workflows:
        return
    sys.path.insert(0, str(REPOSITORY / "tools"))
    import comfyui

    from .workflows import golden_server, kind_of_host
    from .workflows import make as make_by_workflow

    with ExitStack() as stack:
        folders = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in count())
        server = stack.enter_context(golden_server(comfyui.fetch(), next(folders)))
        kind = kind_of_host(server, kind_of_new_process())
        for name, row in workflows.items():
            yield name, make_by_workflow(row, server, kind, next(folders))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
