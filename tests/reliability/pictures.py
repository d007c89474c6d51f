"""Picture files that are damaged, huge or something else, through the command line: a result, or one line.

What is there before, the file itself and an older result, is there afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from allosr2_core.cli.main import main
from allosr2_core.image.read import READABLE_SUFFIXES
from tests.support.awkward_pictures import png, tiff
from tests.support.bombs import HUGE, text_bombs

from .checkpoints import good
from .suites import Lost, cases

TEXTS = (
    *(b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a", b"BM", b""),
    *(b"\xff\xd8\xff", b"P6 9 9 255\n", b"P7\n", b"II*\0", b"MM\0+", b"RIFF\x20\0\0\0WEBP", b"\x89PNG\r\n\x1a\n"),
    *(b"\0" * 4096, b"a photograph"),
)
ADDED = (b"", b"\0", b"\xff" * 500)


@functools.cache
def pillows() -> tuple[bytes, ...]:
    """A small picture in every format that this Pillow writes."""
    Image.init()
    found = []
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (12, 17, 3), dtype=np.uint8))
    for name in sorted(Image.SAVE):
        for mode in ("RGB", "L", "1", "RGBA", "P", "CMYK"):
            buffer = io.BytesIO()
            with contextlib.suppress(Exception):
                pixels.convert(mode).save(buffer, format=name)
                found.append(buffer.getvalue())
                if mode != "RGB":
                    break
    return tuple(data for data in found if data)


@functools.cache
def others() -> tuple[bytes, ...]:
    """What Pillow does not write: more bits, tiles, predictors, animations."""
    rng = np.random.default_rng(1)
    deep = rng.integers(0, 65536, (9, 14, 3)).astype(np.uint16)
    found = [tiff(deep, 16, 2, tile=(16, 16), compression=8, predictor=2), png(deep, 16, 2)]
    found.append(tiff(rng.random((9, 14, 3)).astype(np.float32), 32, 2, compression=8, predictor=3))
    frames = [Image.fromarray(rng.integers(0, 256, (9, 12, 4), dtype=np.uint8)) for _ in range(3)]
    for name in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        buffer = io.BytesIO()
        frames[0].save(buffer, format=name, save_all=True, append_images=frames[1:])
        found.append(buffer.getvalue())
    return tuple(found)


@functools.cache
def bombs() -> tuple[bytes, ...]:
    return (*(make() for make in HUGE.values()), *(data for _, data in text_bombs()))


def picture(rng: random.Random, number: int) -> bytes:
    bodies = pillows() + others()
    if number < len(bodies):  # every one as it is, under any name
        return bodies[number]
    if (at := number - len(bodies)) < len(bombs()):
        return bombs()[at]
    if rng.random() < 0.1:
        return rng.choice(TEXTS) + rng.choice(ADDED)
    data = bytearray(rng.choice(bodies if rng.random() < 0.5 else others()))
    if rng.random() < 0.5:
        return bytes(data[: rng.randrange(len(data))]) + rng.choice(ADDED)
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(min(len(data), rng.choice((60, 400, len(data)))))] = rng.choice(
            (0, 255, 127, rng.randrange(256))
        )
    return bytes(data)


@cases("pictures", quick=110, full=400)
def case(number: int, folder: Path) -> Callable[[], None]:
    rng = random.Random(f"pictures/{number}")
    data = picture(rng, number)
    checkpoint = folder / "tiny.safetensors"
    checkpoint.write_bytes(good())
    folder = folder / "pictures"
    folder.mkdir()
    source = folder / f"{rng.choice(('in', 'a b', 'new' + chr(10) + 'line'))}{rng.choice(READABLE_SUFFIXES)}"
    source.write_bytes(data)
    target = folder / f"out{rng.choice(('.png', '.jpg', '.webp', '.tif'))}"
    older = rng.choice((b"", b"older"))
    if older:
        target.write_bytes(older)
    options = rng.choice(((), ("--compare",), ("--depth", "8"), ("--strip",)))
    options = ("--checkpoint", str(checkpoint), *options)
    return lambda: attempt(source, data, target, older, options)


def attempt(source: Path, data: bytes, target: Path, older: bytes, options: tuple[str, ...]) -> None:
    out, err = io.StringIO(), io.StringIO()
    arguments = ["upscale", str(source), str(target), "--dtype", "fp32", *options]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    lines = err.getvalue().splitlines()
    failed = [line for line in lines if not line.startswith("note: ")]
    written = sorted(path.name for path in source.parent.iterdir())
    if source.read_bytes() != data:
        raise Lost("the input was changed")
    if code == 0:
        expected = {source.name, target.name} | ({"out.compare.png"} if "--compare" in options else set())
        assert not failed and set(written) == expected, f"{written} {failed}"
        with Image.open(target) as result:
            result.load()
        return
    assert code == 1, f"exit code {code}"
    if (target.read_bytes() if target.exists() else b"") != older:
        raise Lost("an older result was changed")
    if set(written) != {source.name} | ({target.name} if older else set()):
        raise Lost(f"half a file is left: {written}")
    assert len(failed) == 1 and failed[0].startswith("failed: ") and len(failed[0]) < 1600, failed
    assert not {"\x1b", "\r", "\u202e"} & set(err.getvalue() + out.getvalue())
