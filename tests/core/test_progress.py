"""The progress bar: what it draws and where, and that every tick it expects comes."""

import io
from pathlib import Path

import pytest

from allosr2_core.progress import Progress
from tests.support.command_line import CommandLine
from tests.support.pictures import write_photo


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_draws_on_a_terminal_only() -> None:
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        progress = Progress(stream, 2)
        progress.begin("a.png")
        progress.expect(4)
        progress.tick()
        progress.end()
        progress.clear()
        assert (stream.getvalue() != "") is drawn
    silent = Terminal()
    Progress(silent, 2, enabled=False).begin("a.png")
    assert silent.getvalue() == ""


def test_progress_line() -> None:
    progress = Progress(io.StringIO(), 2)
    progress.begin("photo\x1b[31m.png")
    progress.expect(4)
    for _ in range(2):
        progress.tick()
    assert progress.line(200) == "[======                  ] 0/2 photo?[31m.png (2/4)"
    assert len(progress.line(20)) == 20
    progress.end()
    assert progress.line(200) == "[============            ] 1/2"


def test_every_expected_tick_comes(run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, ticks = [], []
    monkeypatch.setattr(Progress, "expect", lambda self, tiles: expected.append(tiles))
    monkeypatch.setattr(Progress, "tick", lambda self: ticks.append(1))
    source = write_photo(tmp_path / "in.png", 37, 21)
    for options in ((), ("--tile", 32, "--overlap", 8), ("--tile", 48, "--scale", 3.3)):
        expected.clear(), ticks.clear()
        assert run.upscale(source, tmp_path / "out.png", *options).code == 0
        assert expected == [len(ticks)]
