"""Files before they are pictures: what kind of thing a path is, what its first bytes say, Pillow with our limits."""

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from ..errors import AlloSR2Error
from . import geometry

# The formats Pillow may try. Not among them: those that start another program (EPS), and those that hold something else
# than a picture to look at (PSD layers, FITS measurements).
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000")
_KINDS = {
    **{stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"},
    **{stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"},
}
_TARGA_SUFFIXES = (".tga", ".icb", ".vda", ".vst")
_TARGA_FOOTER = b"TRUEVISION-XFILE.\x00"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
# Pillow refuses pictures above 179 megapixels, and compressed text above 1 MiB, by variables of its modules.
_MOST_TEXT = 1 << 26
_LIMIT = threading.RLock()
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
        raise AlloSR2Error(f"{path}: expected an image file, found {_KINDS.get(stat.S_IFMT(mode), 'something else')}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AlloSR2Error(f"{path}: expected an image file, got: {error}") from error
    if not data:
        raise AlloSR2Error(f"{path}: expected an image, the file is empty (0 bytes)")
    _refuse_foreign(path, data)
    return data


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
    """Pillow's picture of a file, its size checked from the header; Pillow's own limits are ours inside the block.

    own_size: False for a file made here, whose size in px has been checked in another shape.
    """
    formats: list[str] = list(_FORMATS)
    end = file.seek(0, 2)
    file.seek(max(0, end - len(_TARGA_FOOTER)))
    # Targa has no signature at its start: anything might be taken for one.
    if path.suffix.lower() in _TARGA_SUFFIXES or file.read() == _TARGA_FOOTER:
        formats.append("TGA")
    file.seek(0)
    with _our_limits(geometry.MAX_PIXELS if own_size else None), _identified(file, formats) as picture:
        if own_size:
            geometry.check_size(picture.height, picture.width, what=f"{path}: the picture")
        yield picture


def _identified(file: IO[bytes], formats: list[str]) -> Image.Image:
    Image.init()
    formats = [name for name in formats if name in Image.OPEN]  # older Pillows have no AVIF and fail on the name
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:  # its message is about our buffer
        raise OSError(f"none of {', '.join(formats)}, or damaged at the start") from None


@contextmanager
def _our_limits(pixels: int | None) -> Iterator[None]:
    """Pillow with these, for one thread at a time; nests. It refuses twice the pixels it is told."""
    with _LIMIT:
        saved = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = pixels and pixels // 2, _MOST_TEXT
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = saved
