"""Files before they are pictures: what kind of thing a path is, what its first bytes say, Pillow with our limits."""

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from ..errors import AlloSR2Error
from .geometry import check_size

# The formats Pillow may try. Not among them: those that start another program (EPS), and those that hold something else
# than a picture to look at (PSD layers, FITS measurements).
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000")
_TARGA_SUFFIXES = (".tga", ".icb", ".vda", ".vst")
_TARGA_FOOTER = b"TRUEVISION-XFILE.\x00"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_REFUSED = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
)


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises AlloSR2Error, naming the path, for anything but a regular file with something in it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        found = "a link to nothing" if path.is_symlink() else "nothing"
        raise AlloSR2Error(f"{path}: expected an image file, found {found}") from None
    except (OSError, ValueError) as error:
        raise AlloSR2Error(f"{path}: expected an image file, got: {error}") from error
    if not stat.S_ISREG(mode):
        raise AlloSR2Error(f"{path}: expected an image file, found {_kind(mode)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AlloSR2Error(f"{path}: expected an image file, got: {error}") from error
    if not data:
        raise AlloSR2Error(f"{path}: expected an image, the file is empty (0 bytes)")
    _refuse_foreign(path, data)
    return data


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in kinds if test(mode)), "something else")


def _refuse_foreign(path: Path, data: bytes) -> None:
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4], "big"), 256)
        brands = [data[at : at + 4] for at in (8, *range(16, max(16, length), 4))]
        if any(brand in _HEIC_BRANDS for brand in brands) or (b"mif1" in brands and b"avif" not in brands):
            raise AlloSR2Error(
                f"{path}: expected a format Pillow reads, got HEIC; convert it first, e.g. with "
                "'heif-convert photo.heic photo.png' or by exporting it as JPEG or PNG"
            )
    for start, name in _REFUSED:
        if data.startswith(start):
            raise AlloSR2Error(f"{path}: expected a format Pillow reads, got {name}; convert it to PNG or TIFF first")


@contextmanager
def pillow_picture(file: IO[bytes], path: Path, own_size: bool = True) -> Iterator[Image.Image]:
    """Pillow's picture of a file, its size checked from the header; Pillow's own limit is lifted inside the block.

    own_size: False for a file made here, whose size in px has been checked in another shape.
    """
    formats: list[str] = list(_FORMATS)
    end = file.seek(0, 2)
    file.seek(max(0, end - len(_TARGA_FOOTER)))
    # Targa has no signature at its start: anything might be taken for one.
    if path.suffix.lower() in _TARGA_SUFFIXES or file.read() == _TARGA_FOOTER:
        formats.append("TGA")
    file.seek(0)
    with _LIMIT.lifted(), _identified(file, formats) as picture:
        if own_size:
            check_size(picture.height, picture.width, what=f"{path}: the picture")
        yield picture


def _identified(file: IO[bytes], formats: list[str]) -> Image.Image:
    Image.init()
    formats = [name for name in formats if name in Image.OPEN]  # older Pillows have no AVIF and fail on the name
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:  # its message is about our buffer
        raise OSError(f"none of {', '.join(formats)}, or damaged at the start") from None


class PillowLimit:
    """Pillow refuses pictures above 179 megapixels by a module variable. Ours is MAX_PIXELS, checked before decoding.

    Counts its users, so that threads that read at the same time put the old value back only after the last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._saved: int | None = None

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Pillow without its limit; nests."""
        with self._lock:
            if self._users == 0:
                self._saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    Image.MAX_IMAGE_PIXELS = self._saved


_LIMIT = PillowLimit()
