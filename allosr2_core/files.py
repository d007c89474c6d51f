"""Files that appear whole or not at all."""

import contextlib
import os
import stat
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import AlloSR2Error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`write` fills a file of another name, which is synced and takes the place of `path`; folders are made.

    A kill leaves the old file or the new one, an error the old one. A symbolic link is followed. OSError and what
    `write` raises pass through.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    with _partial(target) as partial:
        write(partial)
        with partial.open("r+b") as file:  # Windows syncs only what is open for writing
            os.fsync(file.fileno())
        os.replace(partial, target)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What encoders and the system raise while writing becomes an AlloSR2Error that names the file."""
    try:
        yield
    except AlloSR2Error:
        raise
    except (OSError, ValueError, struct.error) as error:
        raise AlloSR2Error(f"{path}: could not be written: {error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the place of `path` at the end of the block, unless the block raises.

    As `write_atomically`, in a folder that is there. Raises AlloSR2Error when the file cannot be made or put in place;
    errors of the block pass through as they are.
    """
    with writing(path):
        target = Path(os.path.realpath(path))
        if target.is_symlink():
            raise OSError("the link leads in a circle")
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            raise OSError("there is something else than a file under this name")
    with _partial(target) as partial:
        with writing(path):
            file = open(partial, "x+b")  # noqa: SIM115  # closed below, before the file is renamed
        try:
            yield file
            with writing(path):
                file.flush()
                os.fsync(file.fileno())
                file.close()
        finally:
            with contextlib.suppress(OSError):  # it tries again to write what it could not, which was said
                file.close()
        with writing(path):
            os.replace(partial, target)


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A path beside the target, free at the end. Short, so that every name the file system takes can be written."""
    partial = target.with_name(f".{uuid.uuid4().hex[:8]}.part")
    try:
        yield partial
    finally:
        # Whatever went wrong is what the user has to hear, not that the rest could not be removed either.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
