"""Everything a run says while it runs: log.jsonl, log lines or a progress bar, TensorBoard on request."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from allosr2_core.errors import AlloSR2Error

log = logging.getLogger(__name__)
DIGITS = 6
LOG = "log.jsonl"


class RunLog:
    """Writes one line of JSON per report. Rates and the time left come from the steps between reports."""

    def __init__(self, folder: Path, name: str, step: int, last: int, *, tensorboard: bool) -> None:
        """`step`: where the run (re)starts; `last`: where it will stop."""
        self.name, self.last = name, last
        self.board = _board(folder / "tensorboard") if tensorboard else None
        self.file = (folder / LOG).open("a", encoding="utf-8")
        self.bar = tqdm(total=last, initial=step, desc=name, unit="step", disable=not sys.stderr.isatty())
        self.mark(step)

    def mark(self, step: int) -> None:
        """Rates are measured from here on: not over a preview."""
        self.since, self.since_step = time.monotonic(), step

    def steps(self, step: int, batch: int, values: Mapping[str, float]) -> None:
        """Loss terms and what else was measured at this step; `batch`: samples per step over all processes."""
        rate = (step - self.since_step) / max(1e-9, time.monotonic() - self.since)
        self._write(step, dict(values) | {"steps_per_s": rate, "images_per_s": rate * batch})
        self.bar.update(step - self.bar.n)
        if self.bar.disable:
            summary = " ".join(f"{k} {v:.4g}" for k, v in values.items() if k != "seconds")
            minutes = (self.last - step) / rate / 60
            log.info("%s %d/%d %s steps_per_s %.3g eta %.0f min", self.name, step, self.last, summary, rate, minutes)
        self.mark(step)

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures on the validation photographs, logged with a `val_` before their names."""
        self._write(step, {f"val_{name}": value for name, value in figures.items()})
        log.info("%s %d val %s", self.name, step, " ".join(f"{k} {v:.4g}" for k, v in figures.items()))
        self.mark(step)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        self.file.write(json.dumps({"step": step} | {k: round(v, DIGITS) for k, v in values.items()}) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{self.name}/{name}", value, step)

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
