"""A folder shared by processes: who does what, one summary, and a process that dies."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from allosr2_core.cli.processes import Processes
from allosr2_core.errors import AlloSR2Error
from tests.support.pictures import write_photo

REPOSITORY = Path(__file__).resolve().parents[2]
DIES = """
import os
import sys
from allosr2_core.cli.processes import Processes
with Processes() as processes:
    processes.from_first(lambda: None)
    os._exit(9)
"""


def launch(number: int, port: int, *arguments: object) -> subprocess.Popen[str]:
    """One of two processes, as a launcher starts it."""
    told = {"RANK": number, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    environment = os.environ | {name: str(value) for name, value in told.items()}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, side in enumerate((8, 40, 16, 24)):
        write_photo(tmp_path / "in" / f"{number}.png", side, side)
    return tmp_path


def upscale(folder: Path, checkpoint: Path) -> list[object]:
    summary = folder / "summary.json"
    return [
        "-m",
        "allosr2_core",
        "upscale",
        folder / "in",
        folder / "out",
        "--checkpoint",
        checkpoint,
        "--json",
        summary,
    ]


def test_two_processes_share_a_folder_and_one_sums_up(folder: Path, tiny_checkpoint: Path) -> None:
    (folder / "out").mkdir()
    (folder / "in" / "broken.png").write_bytes(b"no picture")
    port = free_port()
    pair = [launch(number, port, *upscale(folder, tiny_checkpoint)) for number in (0, 1)]
    said = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [1, 1], said  # one picture failed, and both know
    assert sorted(path.name for path in (folder / "out").iterdir()) == [f"{number}.png" for number in range(4)]
    lines = [out.splitlines() for out, _ in said]
    assert lines[0][-1].startswith("4 pictures, 1 failed") and "pictures" not in "".join(lines[1])
    assert [len(lines[0]) - 1, len(lines[1])] == [1, 3]  # the largest alone is more work than the others
    assert "1.png" in lines[0][0]
    report = json.loads((folder / "summary.json").read_text())
    assert report["totals"]["done"] == 4 and report["totals"]["failed"] == 1
    assert "broken.png" in said[0][1] and "broken.png" not in said[1][1]


def test_a_process_that_dies_costs_its_own_pictures_only(folder: Path, tiny_checkpoint: Path) -> None:
    port = free_port()
    first, dying = launch(0, port, *upscale(folder, tiny_checkpoint)), launch(1, port, "-c", DIES)
    out, err = first.communicate(timeout=120)
    dying.communicate(timeout=120)
    assert dying.returncode == 9 and first.returncode == 1
    assert "one of 2 processes is gone: the same command does the rest" in err
    assert [path.name for path in (folder / "out").iterdir()] == ["1.png"] and "1 picture" in out
    made = (folder / "out" / "1.png").stat().st_mtime_ns

    port = free_port()
    pair = [launch(number, port, *upscale(folder, tiny_checkpoint)) for number in (0, 1)]
    said = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    assert said[0][0].splitlines()[-1].startswith("3 pictures, 1 skipped")
    assert (folder / "out" / "1.png").stat().st_mtime_ns == made


def test_what_concerns_all_pictures_is_said_by_every_process(tmp_path: Path, tiny_checkpoint: Path) -> None:
    write_photo(tmp_path / "in" / "a.png")
    arguments = upscale(tmp_path, tiny_checkpoint)
    arguments[-1] = tmp_path / "in" / "a.png"
    port = free_port()
    pair = [launch(number, port, *arguments) for number in (0, 1)]
    for process in pair:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2 and "expected a file of its own for the summary" in err


class Elsewhere(Processes):
    """One of a few processes, without the others."""

    def __init__(self, number: int, count: int) -> None:
        super().__init__({"RANK": str(number), "WORLD_SIZE": str(count)})


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_piece_of_work_is_somebodys_once(count: int) -> None:
    work = [3.0, 9.0, 1.0, 1.0, 7.0, 2.0, 2.0]
    shares = [Elsewhere(number, count).share(work) for number in range(count)]
    assert sorted(index for share in shares for index in share) == list(range(len(work)))
    assert all([work[index] for index in share] == sorted((work[i] for i in share), reverse=True) for share in shares)
    loads = [sum(work[index] for index in share) for share in shares]
    assert max(loads) <= max(max(work), sum(work) / count + max(work) / 2)


def test_a_process_alone_needs_no_launcher() -> None:
    with Processes({}) as alone:
        assert alone.first and alone.share([1.0, 2.0]) == [1, 0]
        assert alone.from_first(lambda: 5) == 5 and alone.gathered("a") == ["a"]


@pytest.mark.parametrize(
    "environment", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "-1"}, {"WORLD_SIZE": "two"}, {"WORLD_SIZE": "0"}]
)
def test_an_environment_that_makes_no_sense(environment: Mapping[str, str]) -> None:
    with pytest.raises(AlloSR2Error, match="expected"):
        Processes(environment)
