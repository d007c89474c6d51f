"""Small files that say they are huge, or that become huge when they are read."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image

from .awkward_pictures import chunk

SIDE = 13_000
"""px; allowed for a picture, far too large for one that is enlarged four times."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _deflated(row: bytes, rows: int) -> bytes:
    deflater = zlib.compressobj(9)
    return b"".join((*(deflater.compress(row) for _ in range(rows)), deflater.flush()))


def _png(bits: int, colour_type: int, extra: bytes = b"", side: int = SIDE) -> bytes:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    header = struct.pack(">IIBBBBB", side, side, bits, colour_type, 0, 0, 0)
    row = bytes(1 + (side * bits * channels + 7) // 8)
    pixels = chunk(b"IDAT", _deflated(row, side))
    return SIGNATURE + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def palette_png() -> bytes:
    """Transparent by its palette: whether it is opaque, only its pixels tell."""
    return _png(1, 3, chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\0"))


def grey_png() -> bytes:
    """Without transparency."""
    return _png(1, 0)


def webp() -> bytes:
    """Of one chunk, which is there for 8 x 8 px."""
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (9, 9, 9, 9)).save(buffer, format="WEBP", lossless=True)
    data = bytearray(buffer.getvalue())
    at = data.index(b"VP8L") + 9
    bits = int.from_bytes(data[at : at + 4], "little")
    bits = bits >> 28 << 28 | (SIDE - 1) << 14 | (SIDE - 1)
    data[at : at + 4] = bits.to_bytes(4, "little")
    return bytes(data)


def animated_webp() -> bytes:
    """A canvas of its size, and frames of 8 x 8 px."""
    buffer = io.BytesIO()
    frames = [Image.new("RGBA", (8, 8), (9 * number, 9, 9, 9)) for number in range(3)]
    frames[0].save(buffer, format="WEBP", save_all=True, append_images=frames[1:], lossless=True)
    data = bytearray(buffer.getvalue())
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (SIDE - 1).to_bytes(3, "little") * 2
    return bytes(data)


def two_pages() -> bytes:
    """A TIFF."""
    buffer = io.BytesIO()
    page = Image.new("1", (SIDE, SIDE))
    page.save(buffer, format="TIFF", compression="tiff_adobe_deflate", save_all=True, append_images=[page])
    return buffer.getvalue()


def second_page() -> bytes:
    """A TIFF whose first page is small."""
    buffer = io.BytesIO()
    page = Image.new("1", (SIDE, SIDE))
    Image.new("1", (8, 8)).save(
        buffer, format="TIFF", compression="tiff_adobe_deflate", save_all=True, append_images=[page]
    )
    return buffer.getvalue()


HUGE: dict[str, Callable[[], bytes]] = {
    "palette.png": palette_png,
    "grey.png": grey_png,
    "still.webp": webp,
    "animated.webp": animated_webp,
    "pages.tif": two_pages,
    "second.tif": second_page,
}
"""Name -> a file of SIDE x SIDE px."""


def text_bombs() -> Iterator[tuple[str, bytes]]:
    """Kind -> a PNG of one pixel with metadata that inflates to 256 MiB."""
    inside = _deflated(bytes(1 << 20), 256)
    plain = zlib.compress(bytes(2))
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    extras = {
        "zTXt": chunk(b"zTXt", b"workflow\0\0" + inside),
        "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + inside),
        "iCCP": chunk(b"iCCP", b"profile\0\0" + inside),
        "many zTXt": b"".join(
            chunk(b"zTXt", b"part%d\0\0" % number + _deflated(bytes(1 << 20), 12)) for number in range(40)
        ),
    }
    for kind, extra in extras.items():
        yield kind, SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", plain) + chunk(b"IEND", b"")
