"""What happens to a command line beside its pictures: odd names, full disks, signals, results that are half there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from allosr2_core.cli.main import INTERRUPTED, OK, SOME_FAILED, UNWRITABLE
from tests.support.command_line import CommandLine
from tests.support.pictures import size, write_photo

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "allosr2_core"]


def test_names_are_written_in_one_line(run: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "in\nput"
    write_photo(folder / "a\nfailed: all\x1b[2J.png")
    (folder / "b\rgood\u202egnp.png").write_text("no picture")
    (folder / "c\nd.txt").write_text("notes")
    outcome = run.upscale(folder, tmp_path / "out")
    assert outcome.code == SOME_FAILED
    assert not {"\x1b", "\r", "\u202e"} & set(outcome.out + outcome.err)
    assert len(outcome.out.splitlines()) == 2
    assert [line.split(":")[0] for line in outcome.err.splitlines()] == ["note", "failed"]
    assert r"in\nput/a\nfailed: all\x1b[2J.png -> " in outcome.out
    assert outcome.err.count(r"b\rgood\u202egnp.png") == 1
    outcome = run.upscale(tmp_path / "no\nne.png", tmp_path / "out.png")
    assert outcome.err == f"error: {tmp_path}/no\\nne.png: expected a picture or a folder, found nothing\n"


def test_a_folder_named_like_a_result_is_found_before_the_work(run: CommandLine, tmp_path: Path) -> None:
    write_photo(tmp_path / "in" / "a.png")
    write_photo(tmp_path / "in" / "b.png")
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    (tmp_path / "out" / "b.compare.png").mkdir()
    outcome = run.upscale(tmp_path / "in", tmp_path / "out", "--compare")
    assert outcome.code == SOME_FAILED
    assert outcome.err.count("expected a name for a file, there is a folder or a device under it") == 2
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["a.png", "b.compare.png"]


def test_a_folder_in_the_input_keeps_its_name(run: CommandLine, tmp_path: Path) -> None:
    """a.bmp would become a.png, which is the folder of another result."""
    write_photo(tmp_path / "in" / "a.bmp")
    write_photo(tmp_path / "in" / "a.png" / "b.png")
    outcome = run.upscale(tmp_path / "in", tmp_path / "out", "--recursive")
    assert outcome.code == OK, outcome.err
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["a.bmp.png", "a.png", "a.png/b.png"]


def test_a_strip_that_is_missing_is_made_and_the_result_left_alone(run: CommandLine, tmp_path: Path) -> None:
    source = write_photo(tmp_path / "in.png")
    options = (source, tmp_path / "out.png", "--skip-existing", "--compare")
    (tmp_path / "out.png").write_text("older")
    outcome = run.upscale(*options)
    assert outcome.code == OK
    assert "out.png exists and is left alone" in outcome.err
    assert (tmp_path / "out.png").read_text() == "older"
    assert size(tmp_path / "out.compare.png") == (36, 114)
    outcome = run.upscale(*options)
    assert "1 skipped" in outcome.out and outcome.err == ""


@pytest.mark.parametrize(
    "arguments", [("inspect",), ("upscale", "in.png", "out.png"), ("upscale", "in.png", "o/", "--json", "-")]
)
def test_a_full_disk_behind_the_output(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_photo(tmp_path / "in.png")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            timeout=60,
            check=False,
        )
    said = done.stderr.splitlines()  # with --json - the lines on pictures go there too
    assert said[-1] == "error: the output could not be written: [Errno 28] No space left on device"
    assert len(said) == (3 if "--json" in arguments else 1)
    assert done.returncode == UNWRITABLE


def test_nobody_to_hear_of_it(tmp_path: Path) -> None:
    """Neither output nor errors can be written: the exit code is left."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "inspect"], stdout=full, stderr=full, cwd=REPOSITORY, timeout=60, check=False)
    assert done.returncode == UNWRITABLE


def shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_outputs_that_are_closed(closed: str) -> None:
    done = shell(f"{' '.join(COMMAND)} inspect {closed}")
    assert done.returncode == OK and done.stderr == ""


def test_ctrl_c_while_torch_is_loaded(tmp_path: Path) -> None:
    """No traceback; the shell sees a program that was interrupted."""
    heard = ("env", "--default-signal=INT")  # a script's background has it ignored, and the tests may run there
    command = [*heard, *COMMAND, "upscale", str(tmp_path), str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as started:
        maps, until = Path(f"/proc/{started.pid}/maps"), time.monotonic() + 30
        while b"libtorch" not in maps.read_bytes() and time.monotonic() < until:
            time.sleep(0.01)
        started.send_signal(signal.SIGINT)
        said, _ = started.communicate(timeout=30)
    assert said == b""
    assert started.returncode == -signal.SIGINT


def test_an_interrupt_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under nohup, or in the background of a script."""
    done = shell(f"trap '' INT; {' '.join(COMMAND)} inspect & p=$!; sleep 0.3; kill -INT $p; wait $p")
    assert done.returncode == OK and "config" in done.stdout and INTERRUPTED == 130


def test_pictures_of_any_page_sizes(run: CommandLine, tmp_path: Path) -> None:
    pages = [Image.new("RGB", (9, 5)), Image.new("RGB", (3, 8))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert run.upscale(tmp_path / "a.tif", tmp_path / "b.tif").code == OK
    with Image.open(tmp_path / "b.tif") as written:
        written.seek(1)
        assert written.size == (12, 32)
