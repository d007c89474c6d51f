"""Files before they are pictures: what kind of thing a path is, what its first bytes say, Pillow with our limits.

Nothing else in the pack calls `Image.open`: a file says by its content what it is, and Pillow, left alone, would start
another program for some of them.
"""

import io
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from ..errors import AlloSR2Error
from . import geometry
from .picture_file import DAMAGE

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
_MOST_TEXT = 1 << 24  # bytes of all text of a PNG, inflated, and of its colour profile
MOST_BYTES = 1 << 32
"""Of a file; the largest picture there can be, with 16 bits a channel and transparency, has half of that."""
_START = 64
"""Bytes that say what a file is."""
_LIMIT = threading.RLock()
_REFUSED = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
)


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises AlloSR2Error, naming the path, for anything but a regular file that begins like a picture.

    A file that cannot be one is not read any further than its first bytes, however large it is.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        found = "a link to nothing" if path.is_symlink() else "nothing"
        raise AlloSR2Error(f"{path}: expected an image file, found {found}") from None
    except (OSError, ValueError) as error:
        raise AlloSR2Error(f"{path}: expected an image file, got: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise AlloSR2Error(f"{path}: expected an image file, found {kind}")
    if status.st_size > MOST_BYTES:
        raise AlloSR2Error(f"{path}: expected an image of at most {MOST_BYTES} bytes, got {status.st_size}")
    try:
        with path.open("rb") as file:
            start = file.read(_START)
            if not start:
                raise AlloSR2Error(f"{path}: expected an image, the file is empty (0 bytes)")
            _refuse_foreign(path, start)
            if not formats_of(file, path):
                raise AlloSR2Error(f"{path}: expected an image in a format Pillow reads, {_none_of()}")
            file.seek(0)
            return file.read()
    except OSError as error:
        raise AlloSR2Error(f"{path}: expected an image file, got: {error}") from error


def formats_of(file: IO[bytes], path: Path) -> list[str]:
    """Names of the formats that a file may be by its first bytes, and of Targa by its end or its name; [] for none."""
    Image.init()
    file.seek(0)
    start = file.read(_START)
    found = []
    for name in _FORMATS:
        _, accept = Image.OPEN.get(name, (None, None))  # older Pillows have no AVIF
        if accept is not None and accept(start):
            found.append(name)
    end = file.seek(0, 2)
    file.seek(max(0, end - len(_TARGA_FOOTER)))
    # Targa has no signature at its start: anything might be taken for one.
    if not found and (path.suffix.lower() in _TARGA_SUFFIXES or file.read() == _TARGA_FOOTER):
        found.append("TGA")
    file.seek(0)
    return found


def _none_of() -> str:
    return f"none of {', '.join(_FORMATS)}, or damaged at the start"


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
    formats = formats_of(file, path)
    if own_size and formats == ["WEBP"]:  # some Pillows make room for the pixels when they open it
        height, width = _webp_size(file.read(_START))
        geometry.check_size(height, width, what=f"{path}: the picture")
        file.seek(0)
    with _our_limits(geometry.MAX_PIXELS if own_size else None), _identified(file, formats) as picture:
        if own_size:
            geometry.check_size(picture.height, picture.width, what=f"{path}: the picture")
        yield picture


@contextmanager
def open_picture(path: str | Path, most_pixels: int | None = None) -> Iterator[Image.Image]:
    """Pillow's picture of a file from anywhere, for those who need no more than Pillow reads; not decoded yet.

    Its pixels are to be taken inside the block. Raises AlloSR2Error, naming the file, for what is no regular file or
    empty, begins like no format that is read here, or has more pixels than `most_pixels` or than any picture here may
    have; and in the place of what Pillow raises inside the block.
    """
    path = Path(path)
    data = read_bytes(path)
    try:
        with pillow_picture(io.BytesIO(data), path) as picture:
            if most_pixels is not None and picture.width * picture.height > most_pixels:
                raise AlloSR2Error(
                    f"{path}: expected a picture of at most {most_pixels} pixels, got {picture.width}x{picture.height}"
                )
            yield picture
    except AlloSR2Error:
        raise
    except DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise AlloSR2Error(f"{path}: expected a complete image in a format Pillow reads, got: {reason}") from error


def _webp_size(start: bytes) -> tuple[int, int]:
    """Height and width in the first chunk of a WebP (RFC 9649); 0 where there is none, which Pillow will say."""
    kind, body = start[12:16], start[20:30]
    if kind == b"VP8X":
        return int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(body[8:10], "little") & 0x3FFF, int.from_bytes(body[6:8], "little") & 0x3FFF
    return 0, 0


def _identified(file: IO[bytes], formats: list[str]) -> Image.Image:
    try:
        if formats:  # Pillow takes an empty list for all it knows
            return Image.open(file, formats=formats)
    except UnidentifiedImageError:  # its message is about our buffer
        pass
    raise OSError(_none_of())


@contextmanager
def _our_limits(pixels: int | None) -> Iterator[None]:
    """Pillow with these, for one thread at a time; nests. It refuses twice the pixels it is told."""
    with _LIMIT:
        saved = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
        Image.MAX_IMAGE_PIXELS = pixels and pixels // 2
        PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _MOST_TEXT
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = saved
