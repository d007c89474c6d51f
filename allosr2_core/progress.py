"""A progress bar for terminals; silent where nobody watches."""

import shutil
import time
from typing import TextIO

_REDRAW_SECONDS = 0.1
_BAR = 24  # characters


class Progress:
    """One line on a terminal, redrawn in place: pictures done, tiles of the picture at work.

    On a stream that is not a terminal it draws nothing, so logs stay readable.
    """

    def __init__(self, stream: TextIO, pictures: int, enabled: bool = True) -> None:
        self._stream = stream
        self._pictures = pictures
        self._enabled = enabled and stream.isatty()
        self._done = 0
        self._name = ""
        self._tiles_done = 0
        self._tiles = 0
        self._drawn_at = float("-inf")
        self._shown = False

    def begin(self, name: str) -> None:
        """A picture is taken up."""
        self._name, self._tiles_done, self._tiles = name, 0, 0
        self._draw(force=True)

    def expect(self, tiles: int) -> None:
        """How many ticks the picture at work will take."""
        self._tiles = tiles
        self._draw(force=True)

    def tick(self) -> None:
        """One tile is done."""
        self._tiles_done += 1
        self._draw()

    def end(self) -> None:
        """The picture is finished, well or not."""
        self._done += 1
        self._name, self._tiles_done, self._tiles = "", 0, 0
        self._draw(force=True)

    def clear(self) -> None:
        """Empty the line, before anything else is written."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False

    def line(self, width: int) -> str:
        """What the terminal shows, at most `width` characters."""
        part = min(self._tiles_done / self._tiles, 1.0) if self._tiles else 0.0
        filled = int(_BAR * min((self._done + part) / max(self._pictures, 1), 1.0))
        text = f"[{'=' * filled}{' ' * (_BAR - filled)}] {self._done}/{self._pictures}"
        if self._name:
            name = "".join(character if character.isprintable() else "?" for character in self._name)
            text += f" {name}"
        if self._tiles:
            text += f" ({self._tiles_done}/{self._tiles})"
        return text if len(text) <= width else text[: max(width - 3, 0)] + "..."

    def _draw(self, force: bool = False) -> None:
        now = time.monotonic()
        if not self._enabled or (not force and now - self._drawn_at < _REDRAW_SECONDS):
            return
        self._drawn_at, self._shown = now, True
        self._stream.write("\r" + self.line(shutil.get_terminal_size().columns - 1) + "\x1b[K")
        self._stream.flush()
