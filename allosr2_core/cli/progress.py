"""A progress bar for terminals; silent where nobody watches."""

import shutil
import time
from collections.abc import Callable
from typing import TextIO

_REDRAW_SECONDS = 0.1
_BAR = 24  # characters


class Progress:
    """One line on a terminal, redrawn in place: work done, pictures done, frame and tiles at work, time left.

    Work is counted in pixels of the results, so large pictures count for more. On a stream that is not a terminal it
    draws nothing, so logs stay readable.
    """

    def __init__(
        self,
        stream: TextIO,
        pictures: int,
        work: float,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._pictures = pictures
        self._work = work
        self._enabled = enabled and stream.isatty()
        self._clock = clock
        self._started: float | None = None
        self._pictures_done = 0
        self._work_done = 0.0
        self._name, self._here, self._frames = "", 0.0, 1
        self._frame, self._tiles_done, self._tiles = 0, 0, 0
        self._drawn_at = float("-inf")
        self._shown = False

    def begin(self, name: str, work: float, frames: int = 1) -> None:
        """A picture is taken up; `work` is the pixels of all frames of its result."""
        if self._started is None:
            self._started = self._clock()
        self._name, self._here, self._frames = name, work, frames
        self._frame, self._tiles_done, self._tiles = 0, 0, 0
        self._draw(force=True)

    def expect(self, tiles: int) -> None:
        """The next frame of the picture is at work, and how many ticks it will take."""
        self._frame, self._tiles_done, self._tiles = self._frame + 1, 0, tiles
        self._draw(force=True)

    def tick(self) -> None:
        """One tile is done."""
        self._tiles_done += 1
        self._draw()

    def end(self, finished: bool = True) -> None:
        """The picture is finished, or given up: then what was left of it is no work any more."""
        done = self._here if finished else self._here * self._part()
        self._work_done += done
        self._work -= self._here - done
        self._pictures_done += 1
        self._name, self._here, self._frames = "", 0.0, 1
        self._frame, self._tiles_done, self._tiles = 0, 0, 0
        self._draw(force=True)

    def clear(self) -> None:
        """Empty the line, before anything else is written."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False

    def line(self, width: int) -> str:
        """What the terminal shows, at most `width` characters."""
        fraction = self._fraction()
        filled = int(_BAR * fraction)
        text = f"[{'=' * filled}{' ' * (_BAR - filled)}] {self._pictures_done}/{self._pictures}"
        if fraction and fraction < 1.0 and self._started is not None:
            text += " " + eta((self._clock() - self._started) * (1.0 - fraction) / fraction)
        if self._name:
            name = "".join(character if character.isprintable() else "?" for character in self._name)
            text += f" {name}"
        if self._frames > 1 and self._frame:
            text += f" frame {self._frame}/{self._frames}"
        if self._tiles:
            text += f" ({self._tiles_done}/{self._tiles})"
        return text if len(text) <= width else text[: max(width - 3, 0)] + "..."

    def _part(self) -> float:
        """How much of the picture at work is done, 0 to 1."""
        tiles = min(self._tiles_done / self._tiles, 1.0) if self._tiles else 0.0
        return min((max(self._frame - 1, 0) + tiles) / self._frames, 1.0)

    def _fraction(self) -> float:
        """How much of all work is done, 0 to 1."""
        return min((self._work_done + self._here * self._part()) / max(self._work, 1e-9), 1.0)

    def _draw(self, force: bool = False) -> None:
        now = self._clock()
        if not self._enabled or (not force and now - self._drawn_at < _REDRAW_SECONDS):
            return
        self._drawn_at, self._shown = now, True
        self._stream.write("\r" + self.line(shutil.get_terminal_size().columns - 1) + "\x1b[K")
        self._stream.flush()


def eta(seconds: float) -> str:
    """Time left, as exact as it can be known: "ETA 40 s", "ETA 3 min", "ETA 2 h 5 min"."""
    if seconds < 59.5:
        return f"ETA {max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"ETA {minutes} min"
    return f"ETA {minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
