"""Files no well-behaved program writes, made byte by byte so that what is in them is known exactly."""

import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

# D50-adapted columns of the matrix profiles, as published with the spaces.
P3_COLUMNS = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
ADOBE_COLUMNS = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB_COLUMNS = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))


def s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def table_curve(values: Sequence[float]) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(f">I{len(values)}H", len(values), *(round(v * 65535) for v in values))


def srgb_curve() -> bytes:
    numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + b"".join(map(s15, numbers))


def rgb_profile(name: str, columns: Sequence[Sequence[float]], curve: bytes) -> bytes:
    tags = [
        (sign, b"XYZ \0\0\0\0" + b"".join(map(s15, c)))
        for sign, c in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
    ]
    return icc(name, b"mntr", b"RGB ", [*tags, *((sign, curve) for sign in (b"rTRC", b"gTRC", b"bTRC"))])


def grey_profile(name: str, curve: bytes) -> bytes:
    return icc(name, b"mntr", b"GRAY", [(b"kTRC", curve)])


def cmyk_profile(name: str, corners: Sequence[tuple[float, float, float]], kind: bytes = b"prtr") -> bytes:
    """corners: Lab of the 16 combinations of no and full ink, cyan slowest and black fastest; linear between them."""
    identity = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + b"".join(map(s15, (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut += identity * 4
    for lightness, a, b in corners:
        lut += bytes([round(lightness * 2.55), round(a + 128), round(b + 128)])
    return icc(
        name,
        kind,
        b"CMYK",
        [(sign, lut + identity * 3) for sign in (b"A2B0", b"A2B1")],
        connection=b"Lab ",
        version=0x02400000,
    )


def icc(
    name: str,
    kind: bytes,
    space: bytes,
    tags: Iterable[tuple[bytes, bytes]],
    connection: bytes = b"XYZ ",
    version: int = 0x04300000,
) -> bytes:
    if version >= 0x04000000:
        label = name.encode("utf-16-be")
        text = b"mluc\0\0\0\0" + struct.pack(">II", 1, 12) + b"enUS" + struct.pack(">II", len(label), 28) + label
    else:
        text = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + b"\0" + bytes(78)
    white = b"XYZ \0\0\0\0" + b"".join(map(s15, (0.9642, 1, 0.8249)))
    listed = [(b"desc", text), (b"cprt", text), (b"wtpt", white), *tags]
    table, body, start = b"", b"", 132 + 12 * len(listed)
    for sign, data in listed:
        table += sign + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), version, kind, space, connection)
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += b"".join(map(s15, (0.9642, 1, 0.8249)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(listed)) + table + body


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def packed_rows(samples: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """(H, N) numbers -> rows of `bits` each, filled up to whole bytes."""
    if bits >= 8 and bits != 12:
        return [row.astype(f"{order}{samples.dtype.kind}{bits // 8}").tobytes() for row in samples]
    shifts = np.arange(bits - 1, -1, -1)
    return [np.packbits((row[:, None].astype(np.int64) >> shifts & 1).astype(np.uint8)).tobytes() for row in samples]


def png(samples: np.ndarray, bits: int, colour_type: int, extra: bytes = b"", end: bool = True) -> bytes:
    """samples: (H, W, C) as stored. extra: chunks before the pixels."""
    height, width, channels = samples.shape
    rows = packed_rows(samples.reshape(height, width * channels), bits)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + (chunk(b"IEND", b"") if end else b"")


def apng(
    height: int, width: int, frames: Sequence[tuple[np.ndarray, int, int, int, int]], default: np.ndarray | None = None
) -> bytes:
    """RGBA frames (pixels, top, left, disposal, blend), 50 ms each, played 3 times; default: a picture beside them."""

    def deflated(pixels: np.ndarray) -> bytes:
        return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))

    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    body += chunk(b"acTL", struct.pack(">II", len(frames), 3))
    if default is not None:
        body += chunk(b"IDAT", deflated(default))
    sequence = 0
    for number, (pixels, top, left, disposal, blend) in enumerate(frames):
        h, w, _ = pixels.shape
        body += chunk(b"fcTL", struct.pack(">5I2H2B", sequence, w, h, left, top, 1, 20, disposal, blend))
        sequence += 1
        if number == 0 and default is None:
            body += chunk(b"IDAT", deflated(pixels))
        else:
            body += chunk(b"fdAT", struct.pack(">I", sequence) + deflated(pixels))
            sequence += 1
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def tiff(
    samples: np.ndarray,
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    extra: Sequence[int] = (),
    sample_format: int | None = None,
    compression: int = 1,
    predictor: int = 1,
    planar: bool = False,
    tile: tuple[int, int] | None = None,
    rows_per_strip: int | None = None,
    reversed_bits: bool = False,
    tags: dict[int, tuple[int, int, bytes]] | None = None,
) -> bytes:
    """samples: (H, W, C) as stored. compression: 1 none, 8 deflate, 32773 packbits (literal runs only).

    tags: further ones, tag -> (type, count, data in the file's byte order).
    """
    height, width, channels = samples.shape
    blocks = []
    for plane in np.split(samples, channels, axis=-1) if planar else [samples]:
        if tile is None:
            step = rows_per_strip or height
            pieces = [plane[top : top + step] for top in range(0, height, step)]
        else:
            grown = np.zeros(
                (-(-height // tile[0]) * tile[0], -(-width // tile[1]) * tile[1], plane.shape[-1]), plane.dtype
            )
            grown[:height, :width] = plane
            pieces = [
                grown[top : top + tile[0], left : left + tile[1]]
                for top in range(0, height, tile[0])
                for left in range(0, width, tile[1])
            ]
        blocks += [_tiff_block(piece, bits, order, compression, predictor, reversed_bits) for piece in pieces]

    def pack(code: str, *values: int) -> bytes:
        return struct.pack(f"{order}{len(values)}{code}", *values)

    body = b"".join(blocks)
    offsets, at = [], 8
    for block in blocks:
        offsets.append(at)
        at += len(block)
    wanted = {
        256: (4, 1, pack("I", width)),
        257: (4, 1, pack("I", height)),
        258: (3, channels, pack("H", *(bits,) * channels)),
        259: (3, 1, pack("H", compression)),
        262: (3, 1, pack("H", photometric)),
        266: (3, 1, pack("H", 2 if reversed_bits else 1)),
        277: (3, 1, pack("H", channels)),
        284: (3, 1, pack("H", 2 if planar else 1)),
        317: (3, 1, pack("H", predictor)),
        339: (3, channels, pack("H", *(sample_format or (3 if samples.dtype.kind == "f" else 1),) * channels)),
    }
    if tile is None:
        wanted |= {
            273: (4, len(blocks), pack("I", *offsets)),
            278: (4, 1, pack("I", rows_per_strip or height)),
            279: (4, len(blocks), pack("I", *map(len, blocks))),
        }
    else:
        wanted |= {322: (4, 1, pack("I", tile[1])), 323: (4, 1, pack("I", tile[0]))}
        wanted |= {324: (4, len(blocks), pack("I", *offsets)), 325: (4, len(blocks), pack("I", *map(len, blocks)))}
    if extra:
        wanted[338] = (3, len(extra), pack("H", *extra))
    wanted |= tags or {}
    body += bytes(len(body) % 2)
    table, outside = b"", b""
    start = 8 + len(body)
    behind = start + 2 + 12 * len(wanted) + 4
    for tag, (kind, count, data) in sorted(wanted.items()):
        if len(data) > 4:
            place = pack("I", behind + len(outside))
            outside += data + bytes(len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        table += pack("H", tag, kind) + pack("I", count) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + pack("I", start)
    return head + body + pack("H", len(wanted)) + table + bytes(4) + outside


def _tiff_block(
    piece: np.ndarray, bits: int, order: str, compression: int, predictor: int, reversed_bits: bool
) -> bytes:
    height, width, channels = piece.shape
    if predictor == 2:
        piece = np.concatenate((piece[:, :1], piece[:, 1:] - piece[:, :-1]), axis=1)
    rows = packed_rows(piece.reshape(height, width * channels), bits, order)
    if predictor == 3:
        rows = [_float_differences(row, bits // 8, channels, order) for row in rows]
    data = b"".join(rows)
    if compression == 8:
        data = zlib.compress(data)
    elif compression == 32773:
        packed = []
        for row in rows:
            packed += [bytes([len(row[at : at + 128]) - 1]) + row[at : at + 128] for at in range(0, len(row), 128)]
        data = b"".join(packed)
    if reversed_bits:
        data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)[:, None], axis=1)[:, ::-1], axis=1).tobytes()
    return data


def _float_differences(row: bytes, size: int, channels: int, order: str) -> bytes:
    """Adobe's floating point predictor: bytes of equal weight together, most significant first, then differences."""
    values = np.frombuffer(row, np.uint8).reshape(-1, size)
    planes = (values[:, ::-1] if order == "<" else values).T.reshape(-1)
    differences = planes.copy()
    differences[channels:] -= planes[:-channels]
    return differences.tobytes()


def exif_block(
    entries: dict[int, tuple[int, int, bytes]],
    inner: dict[int, tuple[int, int, bytes]] | None = None,
    thumbnail: bytes = b"",
    order: str = "<",
) -> bytes:
    """A TIFF structure with IFD0, an EXIF directory and, with a thumbnail, IFD1. Tag -> (type, count, data)."""

    def pack(code: str, *values: int) -> bytes:
        return struct.pack(order + code, *values)

    def directory(at: int, tags: dict[int, tuple[int, int, bytes]], following: int) -> bytes:
        table, outside = b"", b""
        behind = at + 2 + 12 * len(tags) + 4
        for tag, (kind, count, data) in sorted(tags.items()):
            place = data.ljust(4, b"\0")
            if len(data) > 4:
                place = pack("I", behind + len(outside))
                outside += data + bytes(len(data) % 2)
            table += pack("HHI", tag, kind, count) + place
        return pack("H", len(tags)) + table + pack("I", following) + outside

    tags = dict(entries)
    if inner is not None:
        tags[0x8769] = (4, 1, pack("I", 0))
    first_length = len(directory(8, tags, 0))
    second_at = 8 + first_length
    if inner is not None:
        tags[0x8769] = (4, 1, pack("I", second_at))
    second = directory(second_at, inner, 0) if inner is not None else b""
    third_at = second_at + len(second)
    third = b""
    if thumbnail:
        pointers = {513: (4, 1, pack("I", third_at + 30)), 514: (4, 1, pack("I", len(thumbnail)))}
        third = directory(third_at, pointers, 0) + thumbnail
    head = (b"II*\0" if order == "<" else b"MM\0*") + pack("I", 8)
    return head + directory(8, tags, third_at if thumbnail else 0) + second + third
