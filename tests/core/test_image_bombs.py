"""Files that become huge are refused by what they say of themselves, before they do."""

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from allosr2_core.cli.main import SOME_FAILED, UNUSABLE
from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.metadata import _clean_xmp
from allosr2_core.image.read import load_image, read_header
from tests.support.awkward_pictures import tiff
from tests.support.bombs import HUGE, text_bombs
from tests.support.command_line import CommandLine
from tests.support.pictures import photo, write_photo

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_MIB = 700
"""Of a whole process, torch included, that restores a small picture."""


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for name, make in HUGE.items():
        (folder / name).write_bytes(make())
    return folder


MEASURED = """
import sys
from allosr2_core.cli.main import main
from allosr2_core.cli.report import peak_memory_mib
code = main(sys.argv[1:])
sys.stdout.write(f"{peak_memory_mib()}\\n")
sys.exit(code)
"""


def run_measured(*arguments: object) -> tuple[int, str, float]:
    """Exit code, what was said, and the peak memory in MiB of a command line of its own."""
    command = [sys.executable, "-c", MEASURED, "upscale", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    *said, peak = done.stdout.splitlines()
    return done.returncode, "\n".join(said), float(peak)


@pytest.mark.parametrize("options", [("--format", "jpg"), ("--format", "tiff"), ("--compare",)], ids=str)
def test_a_result_too_large_costs_no_memory(bombs: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    code, said, peak = run_measured(bombs, tmp_path / "out", *options)
    # The small first page of a TIFF is restored alone where the format holds one page.
    assert code == SOME_FAILED
    failed = [line for line in said.splitlines() if line.startswith("failed: ")]
    assert len(failed) == len(HUGE) - ("jpg" in options)
    assert all("expected at most 65535 px an edge and 268 megapixels, got 52000x52000" in line for line in failed)
    assert peak < MOST_MIB


def test_a_mask_too_large_costs_no_memory(bombs: Path, tmp_path: Path) -> None:
    for source, mask in (("grey.png", "grey.png"), ("small.png", "grey.png")):
        write_photo(tmp_path / "small.png")
        place = (tmp_path if source == "small.png" else bombs) / source
        code, said, peak = run_measured(place, tmp_path / "out.png", "--mask", bombs / mask)
        assert code in (SOME_FAILED, UNUSABLE)
        assert "expected at most" in said or "expected a mask of the input's size" in said
        assert len(said.splitlines()) <= 2 and peak < MOST_MIB


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture
def peak() -> Iterator[None]:
    """Fails a test whose memory grew by more than 200 MiB at its peak."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    clear.write_text("5")
    before = resident_mib()
    yield
    peaks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    assert int(peaks[0].split()[1]) / 1024 - before < 200


@pytest.mark.usefixtures("peak")
def test_metadata_that_inflates_is_left_out(tmp_path: Path) -> None:
    for kind, data in text_bombs():
        (tmp_path / "a.png").write_bytes(data)
        started = time.process_time()
        loaded = load_image(tmp_path / "a.png")
        assert loaded.metadata.text == () and not loaded.metadata.icc_profile, kind
        assert "left out" in loaded.note or "not used" in loaded.note, kind
        assert time.process_time() - started < 2.0, kind


def test_xmp_that_begins_again_and_again_takes_no_longer() -> None:
    started = time.process_time()
    for start in (b"<xmp:Thumbnails ", b"</xmp:Thumbnails ", b'tiff:Orientation="', b"tiff:Orientation= ", b" <x "):
        _clean_xmp(start * 100_000)
    assert time.process_time() - started < 2.0
    assert _clean_xmp(b"a<xmp:Thumbnails>1</xmp:Thumbnails >b<xmp:Thumbnails/>c") == b"ab<xmp:Thumbnails/>c"
    assert _clean_xmp(b"<xmp:Thumbnails><xmp:Thumbnails>1</xmp:Thumbnails>b") == b"b"


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path: Path) -> None:
    """Each scan without data would go over every pixel again."""
    path = tmp_path / "a.jpg"
    Image.fromarray(photo(64, 80)).save(path, progressive=True)
    data = path.read_bytes()
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[:last] + data[last:-2] * 1000 + b"\xff\xd9")
    with pytest.raises(AlloSR2Error, match=r"a\.jpg: .*scans, 100 at most are read"):
        load_image(path)


def test_tiff_pages_that_share_their_numbers_are_refused(tmp_path: Path) -> None:
    """One table of a million strips, and a thousand directories that point at it."""
    one = tiff(np.zeros((1, 1, 1), np.uint8), 8, 1)
    start = struct.unpack_from("<I", one, 4)[0]
    count = struct.unpack_from("<H", one, start)[0]
    directory = bytearray(one[start : start + 2 + 12 * count])
    table = 8 + 1_000_000
    for at in range(2, len(directory), 12):
        if struct.unpack_from("<H", directory, at)[0] in (273, 279):
            directory[at + 4 : at + 12] = struct.pack("<II", 250_000, 8)
    pages = b""
    for number in range(1000):
        following = table + (number + 1) * (len(directory) + 4)
        pages += bytes(directory) + struct.pack("<I", following if number < 999 else 0)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", table) + bytes(1_000_000) + pages)
    started = time.process_time()
    with pytest.raises(AlloSR2Error, match=r"a\.tif: .*say more than the file holds"):
        read_header(path)
    assert time.process_time() - started < 2.0


@pytest.mark.usefixtures("peak")
@pytest.mark.parametrize("tag", [273, 279, 320])
def test_a_tiff_tag_of_millions_of_numbers_is_refused(tmp_path: Path, tag: int) -> None:
    """16 million of four bytes, which as Python's numbers would have ten times as many."""
    one = bytearray(tiff(np.zeros((1, 1, 1), np.uint8), 8, 1, tags={320: (4, 1, bytes(4))}))
    at = one.index(struct.pack("<HHI", tag, 4, 1))
    one[at + 4 : at + 12] = struct.pack("<II", 1 << 24, len(one))
    (tmp_path / "a.tif").write_bytes(bytes(one) + bytes(1 << 26))
    with pytest.raises(AlloSR2Error, match=f"TIFF tag {tag} of 16777216 numbers"):
        read_header(tmp_path / "a.tif")


def test_pages_of_other_sizes_fit_no_mask(run: CommandLine, tmp_path: Path) -> None:
    """Found out before the first page is restored."""
    pages = [Image.fromarray(photo(9, 14)), Image.fromarray(photo(5, 14))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    write_photo(tmp_path / "mask.png", 9, 14, mode="L")
    outcome = run.upscale(tmp_path / "a.tif", tmp_path / "out.tif", "--mask", tmp_path / "mask.png")
    assert outcome.code == UNUSABLE
    assert "expected a mask of the size of all pages of the input, 14x5 px, got 14x9" in outcome.err
    assert not (tmp_path / "out.tif").exists()
    assert run.upscale(tmp_path / "a.tif", tmp_path / "out.png", "--mask", tmp_path / "mask.png").code == 0
