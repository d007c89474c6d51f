"""Everything a run says while it runs: log.jsonl, log lines or a progress bar, TensorBoard on request."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch import Tensor
from tqdm import tqdm

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import writing

log = logging.getLogger(__name__)
DIGITS = 6
LOG = "log.jsonl"


BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"
"""Without tqdm's own guess of the time left, which takes a preview for slow steps."""


class Means:
    """Means of what steps give, since they were last taken.

    A stage's terms may take turns: each counts for the steps that it was in.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """What one step gave."""
        for name, value in values.items():
            before, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = value.float() + before, count + 1

    def take(self) -> dict[str, Tensor]:
        """The means, and begin anew."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means


class RunLog:
    """Writes one line of JSON per report. Rates and the time left come from the steps between reports."""

    def __init__(self, folder: Path, name: str, step: int, last: int, preview_every: int, *, tensorboard: bool) -> None:
        """`step`: where the run (re)starts; `last`: where it will stop; `preview_every`: steps, 0 = no previews."""
        self.name, self.last, self.preview_every = name, last, preview_every
        self.preview_seconds = 0.0
        """How long the last preview took."""
        self.board = _board(folder / "tensorboard") if tensorboard else None
        self.path = folder / LOG
        self.file = self.path.open("ab", buffering=0)
        shown = sys.stderr.isatty()
        self.bar = tqdm(total=last, initial=step, desc=name, unit="step", bar_format=BAR, disable=not shown)
        self.mark(step)

    def mark(self, step: int) -> None:
        """Rates are measured from here on: not over a preview."""
        self.since, self.since_step = time.monotonic(), step

    def steps(self, step: int, batch: int, values: Mapping[str, float]) -> None:
        """Loss terms and what else was measured at this step; `batch`: samples per step over all processes."""
        rate = (step - self.since_step) / max(1e-9, time.monotonic() - self.since)
        self._write(step, dict(values) | {"steps_per_s": rate, "images_per_s": rate * batch})
        minutes = self.seconds_left(step, rate) / 60
        self.bar.set_postfix_str(f"loss {values['total']:.4g}, eta {minutes:.0f} min", refresh=False)
        self.bar.update(step - self.bar.n)
        if self.bar.disable:
            summary = " ".join(f"{k} {v:.4g}" for k, v in values.items() if k != "seconds")
            log.info("%s %d/%d %s steps_per_s %.3g eta %.0f min", self.name, step, self.last, summary, rate, minutes)
        self.mark(step)

    def seconds_left(self, step: int, rate: float) -> float:
        """Of the steps still to come at this rate, and of their previews, that of this step among them."""
        every = self.preview_every
        previews = self.last // every - (step - 1) // every + (self.last % every > 0) if every else 0
        return (self.last - step) / rate + previews * self.preview_seconds

    def validation(self, step: int, figures: Mapping[str, float], seconds: float) -> None:
        """Figures on the validation photographs, logged with a `val_` before their names; they took so long."""
        self.preview_seconds = seconds
        self._write(step, {f"val_{name}": value for name, value in figures.items()})
        log.info("%s %d val %s", self.name, step, " ".join(f"{k} {v:.4g}" for k, v in figures.items()))
        self.mark(step)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        line = json.dumps({"step": step} | {k: round(v, DIGITS) for k, v in values.items()}) + "\n"
        with writing(self.path):
            self._append(line.encode())
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{self.name}/{name}", value, step)

    def _append(self, line: bytes) -> None:
        """All of a line or, where the disk does not take it, nothing."""
        end = self.file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self.file.write(line) :]
        except OSError:
            self.file.truncate(end)
            raise

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        self.file.close()
        if self.board is not None:
            self.board.close()


def _board(folder: Path):  # noqa: ANN202 - a SummaryWriter, imported only when it is asked for
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise AlloSR2Error("run.tensorboard: expected the package tensorboard; it is not installed") from error
    return SummaryWriter(str(folder))
