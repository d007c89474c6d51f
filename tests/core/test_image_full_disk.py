"""Writing a picture where the disk is full: it is said, and nothing of the file is left, however little was missing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.write import Frame, SaveOptions, save_frames, save_image

resource = pytest.importorskip("resource", reason="runs on POSIX: limits the size of a file")
PIXELS = torch.rand(3, 61, 67, 3, generator=torch.Generator().manual_seed(0))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system takes no more bytes for a file than that, and a write across the end in part, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def picture(path: Path) -> None:
    save_image(path, PIXELS[0])


def deep(path: Path) -> None:
    save_image(path, PIXELS[0], options=SaveOptions(bits=16))


def frames(path: Path) -> None:
    save_frames(path, [Frame(each, None, 100.0) for each in PIXELS], animated=path.suffix != ".tif")


@pytest.mark.parametrize(
    ("save", "suffix"),
    [
        *((picture, suffix) for suffix in (".png", ".jpg", ".webp", ".tif")),
        *((deep, suffix) for suffix in (".png", ".tif")),
        *((frames, suffix) for suffix in (".png", ".webp", ".tif")),
    ],
)
def test_a_full_disk_is_said(tmp_path: Path, save: Callable[[Path], None], suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save(path)
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        with files_of_at_most(size), pytest.raises(AlloSR2Error, match=f"a{suffix}: could not be written.*too large"):
            save(path)
        assert [each.name for each in tmp_path.iterdir()] == [path.name]
        assert path.read_bytes() == whole
    with files_of_at_most(len(whole)):
        save(path)
    assert path.read_bytes() == whole
