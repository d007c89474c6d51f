"""A Python that notes every connection to another machine: `environment(folder)` for the process to watch.

The module is imported by that process as `sitecustomize`, since ComfyUI imports the pack in a process of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "NOTED_CONNECTIONS"
LOCAL = ("127.", "localhost", "::1", "0.0.0.0")  # noqa: S104 - compared with, not bound to


def environment(folder: Path) -> tuple[dict[str, str], Path]:
    """(variables for the process, the file that names each foreign host it asked for)."""
    (folder / "sitecustomize.py").write_text(Path(__file__).read_text())
    noted = folder / "connections.txt"
    noted.touch()
    return {"PYTHONPATH": str(folder), VARIABLE: str(noted)}, noted


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host and not str(host).startswith(LOCAL):
        with open(os.environ[VARIABLE], "a", encoding="utf-8") as stream:
            stream.write(f"{host}\n")


if os.environ.get(VARIABLE) and __name__ == "sitecustomize":
    sys.addaudithook(_note)
