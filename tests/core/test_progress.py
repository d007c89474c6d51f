"""The progress bar: what it draws and where, and that every tick it expects comes."""

import io
from pathlib import Path

import pytest
from PIL import Image

from allosr2_core.cli.progress import Progress, eta
from tests.support.command_line import CommandLine
from tests.support.pictures import write_photo


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_progress_draws_on_a_terminal_only() -> None:
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        progress = Progress(stream, 2, 200)
        progress.begin("a.png", 100)
        progress.expect(4)
        progress.tick()
        progress.end()
        progress.clear()
        assert (stream.getvalue() != "") is drawn
    silent = Terminal()
    Progress(silent, 2, 200, enabled=False).begin("a.png", 100)
    assert silent.getvalue() == ""


def test_progress_line() -> None:
    clock = Clock()
    progress = Progress(io.StringIO(), 2, 200, clock=clock)
    progress.begin("photo\x1b[31m.png", 100)
    progress.expect(4)
    assert progress.line(200) == "[                        ] 0/2 photo?[31m.png (0/4)"
    clock.now += 60
    for _ in range(2):
        progress.tick()
    assert progress.line(200) == "[======                  ] 0/2 ETA 3 min photo?[31m.png (2/4)"
    assert len(progress.line(20)) == 20
    progress.end()
    assert progress.line(200) == "[============            ] 1/2 ETA 1 min"


def test_work_is_counted_in_pixels() -> None:
    """A large picture weighs more than a small one; what is given up is no work left, and no speed."""
    clock = Clock()
    progress = Progress(io.StringIO(), 3, 1000, clock=clock)
    progress.begin("small.png", 100)
    clock.now += 10
    progress.end()
    assert "ETA 2 min" in progress.line(200)  # 900 pixels at 10 a second
    progress.begin("bad.png", 800)
    progress.end(finished=False)
    assert progress.line(200) == "[============            ] 2/3 ETA 10 s"


def test_frames_count() -> None:
    clock = Clock()
    progress = Progress(io.StringIO(), 1, 400, clock=clock)
    progress.begin("a.gif", 400, frames=4)
    for _ in range(2):
        progress.expect(2)
        progress.tick()
        progress.tick()
    clock.now += 7200
    assert progress.line(200) == "[============            ] 0/1 ETA 2 h a.gif frame 2/4 (2/2)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (59, "59 s"), (59.6, "1 min"), (170, "3 min"), (3600, "1 h"), (7500, "2 h 5 min"), (93600, "26 h")],
)
def test_eta(seconds: float, text: str) -> None:
    assert eta(seconds) == f"ETA {text}"


def test_every_expected_tick_comes(run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, ticks = [], []
    monkeypatch.setattr(Progress, "expect", lambda self, tiles: expected.append(tiles))
    monkeypatch.setattr(Progress, "tick", lambda self: ticks.append(1))
    source = write_photo(tmp_path / "in.png", 37, 21)
    for options in ((), ("--tile", 32, "--overlap", 8), ("--tile", 48, "--scale", 3.3)):
        expected.clear(), ticks.clear()
        assert run.upscale(source, tmp_path / "out.png", *options).code == 0
        assert expected == [len(ticks)]


def test_the_work_of_a_folder_is_known_before_it_starts(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, float, list[float]]] = []
    real = Progress.begin

    def begin(self: Progress, name: str, work: float, frames: int = 1) -> None:
        begun.append((self._pictures, self._work, [work, frames]))
        real(self, name, work, frames)

    monkeypatch.setattr(Progress, "begin", begin)
    write_photo(tmp_path / "in" / "a.png", 4, 6)
    frames = [Image.new("RGB", (5, 3), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "in" / "b.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "in" / "broken.png").write_text("no picture")
    assert run.upscale(tmp_path / "in", tmp_path / "out", "--scale", 2).code == 1
    total = 8 * 12 + 3 * 6 * 10
    assert begun == [(2, total, [8 * 12, 1]), (2, total, [3 * 6 * 10, 3])]
