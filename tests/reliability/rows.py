"""The counts of all suites: a list of rows in a JSON file, by name, and the table of the document beside it."""

from __future__ import annotations

import json
from pathlib import Path

from .suites import Count

Row = dict[str, str | int]
FIELDS = ("name", "tried", "failed", "lost", "command")
FIRST, LAST = "<!-- rows -->", "<!-- end of rows -->"
"""Of the table in a document."""


def row(name: str, counted: Count, command: str) -> Row:
    """What is kept of a suite."""
    return {
        "name": name,
        "tried": counted.tried,
        "failed": counted.failed,
        "lost": counted.lost,
        "command": command,
    }


def merge(path: Path, rows: list[Row]) -> list[Row]:
    """Write the rows into a file: in the place of those of the same names, new ones at its end. All that are in it."""
    found: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    by_name = {str(each["name"]): each for each in found} | {str(each["name"]): each for each in rows}
    merged = list(by_name.values())
    path.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
    document = path.with_suffix(".md")
    if document.exists():
        document.write_text(with_table(document.read_text(encoding="utf-8"), merged), encoding="utf-8")
    return merged


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(FIELDS)} |", "|---|---|---|---|---|"]
    lines += [
        "| " + " | ".join(f"`{each[f]}`" if f == "command" else str(each[f]) for f in FIELDS) + " |" for each in rows
    ]
    return "\n".join(lines)


def with_table(text: str, rows: list[Row]) -> str:
    """A document with these rows between FIRST and LAST."""
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return f"{before}{FIRST}\n{table(rows)}\n{LAST}{after}"
