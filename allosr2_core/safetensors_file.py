"""Safetensors files from strangers, opened: what is no such file is refused by its first bytes, quickly."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .errors import AlloSR2Error

MOST_HEADER = 1 << 24
"""Bytes of a header: names, shapes and metadata. Those of large bases have some 100 000."""
_LENGTH = 8
"""Bytes that say how long the header is."""


@contextmanager
def opened(path: str | os.PathLike[str], where: str) -> Iterator[Any]:
    """The file as `safetensors.safe_open` gives it; nothing but its header is read until a tensor is asked for.

    Raises:
        AlloSR2Error: begins with `where`; for what is missing, no regular file, cut off or no safetensors file, also
            where safetensors finds that only inside the block.
    """
    _check(Path(path), where)
    try:
        file = safe_open(path, framework="pt")
    except (OSError, MemoryError, SafetensorError) as error:  # memory: where address space is limited
        raise AlloSR2Error(f"{where}: expected a complete safetensors file; {error}") from error
    try:
        with file:
            yield file
    except (OSError, SafetensorError) as error:
        raise AlloSR2Error(f"{where}: expected a complete safetensors file; {error}") from error


def _check(path: Path, where: str) -> None:
    """The size, and that of the header it says it has."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AlloSR2Error(f"{where}: expected a safetensors file at {path}; there is none") from None
    except (OSError, ValueError) as error:
        raise AlloSR2Error(f"{where}: expected a safetensors file; {error}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a device or a socket"
        raise AlloSR2Error(f"{where}: expected a safetensors file; found {kind}")
    if status.st_size == 0:
        raise AlloSR2Error(f"{where}: expected a safetensors file; this file is empty")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
    except OSError as error:
        raise AlloSR2Error(f"{where}: expected a safetensors file; {error}") from error
    if status.st_size < _LENGTH + length:
        raise AlloSR2Error(
            f"{where}: expected a complete safetensors file; its header has {length} bytes, the file {status.st_size}"
        )
    if length > MOST_HEADER:
        raise AlloSR2Error(f"{where}: expected a header of at most {MOST_HEADER} bytes; got {length}")
