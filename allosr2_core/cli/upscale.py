"""The work of `upscale`: every picture in turn, and what is said of it."""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import AlloSR2Error
from ..options import UpscaleOptions
from ..pipeline import Pipeline
from .mask import load_mask
from .paths import Inputs
from .picture import Worker
from .progress import Progress
from .report import DONE, FAILED, SKIPPED, Record, Totals, check_json_file, json_report, write_json
from .settings import OutputSettings, Talk
from .survey import Planned, Survey, survey

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Request:
    """Everything `upscale` was asked for."""

    inputs: Inputs
    settings: UpscaleOptions
    output: OutputSettings
    talk: Talk
    mask: str | None
    checkpoint: Path


def upscale_pictures(request: Request, load_upscaler: Callable[[], Pipeline]) -> bool:
    """Restore every picture of a request; whether all went well.

    What the headers already rule out is said first. load_upscaler is called once, when there is work. Raises
    AlloSR2Error, before any work, for what concerns all pictures.
    """
    mask_1HW = None if request.mask is None else load_mask(request.mask, request.inputs)
    others = (request.checkpoint, *(() if request.mask is None else (Path(request.mask),)))
    plan = survey(request.inputs, request.settings, request.output, others)
    if request.talk.json_file is not None:
        check_json_file(request.talk.json_file, plan.pairs, others)
    upscaler = load_upscaler() if plan.planned else None
    progress = Progress(
        sys.stderr, len(plan.planned), sum(each.work for each in plan.planned), enabled=not request.talk.quiet
    )
    run = _Run(request, plan, progress)
    if upscaler is None:
        run.begin()
        return run.finish()
    worker = Worker(upscaler, request.settings, request.output, mask_1HW, progress)
    try:
        run.begin()
        for planned in plan.planned:
            run.do(planned, worker)
    except KeyboardInterrupt:
        progress.clear()
        run.write_json(interrupted=True)
        raise
    return run.finish()


class _Run:
    """One call of `upscale` under way: its records so far, and the streams it speaks on."""

    def __init__(self, request: Request, plan: Survey, progress: Progress) -> None:
        self.request, self.plan, self.progress = request, plan, progress
        self.started = time.perf_counter()
        self.records: list[Record] = []

    def begin(self) -> None:
        """Say what was left out, and what cannot be done or need not be."""
        for reason, paths in (
            ("no picture by the suffix", self.request.inputs.others),
            ("a link to a folder", self.request.inputs.links),
        ):
            if paths:
                names = ", ".join(path.name for path in paths[:_NAMES_SHOWN])
                self._note(f"left out {len(paths)}, {reason}: {names}{' ...' if len(paths) > _NAMES_SHOWN else ''}")
        for refused in self.plan.refused:
            self._fail(Record(refused.pair, FAILED, error=_reason(refused.pair.source, refused.error)))
        self.records += [Record(pair, SKIPPED) for pair in self.plan.skipped]

    def do(self, planned: Planned, worker: Worker) -> None:
        """Work on one picture; if it fails, it fails alone."""
        started, pair, finished = time.perf_counter(), planned.pair, False
        self.progress.begin(pair.source.name, planned.work, planned.frames)
        try:
            notes = worker.work(planned)
            finished = True
        # torch reports a lack of memory as a RuntimeError
        except (AlloSR2Error, OSError, MemoryError, RuntimeError) as error:
            seconds, reason = time.perf_counter() - started, _reason(pair.source, error)
            self._fail(Record(pair, FAILED, planned, seconds, planned.notes, reason))
        else:
            record = Record(pair, DONE, planned, time.perf_counter() - started, notes)
            self.records.append(record)
            for note in notes:
                self._note(f"{pair.source}: {note}")
            self._say(record.line())
        finally:
            self.progress.end(finished)

    def finish(self) -> bool:
        """Say the summary and write it as JSON; whether all went well."""
        self.progress.clear()
        self._say(self._totals().line())
        written = self.write_json(interrupted=False)
        return written and all(record.status != FAILED for record in self.records)

    def write_json(self, interrupted: bool) -> bool:
        """Write the summary as JSON, if one is asked for; whether that went well."""
        request = self.request
        if request.talk.json is None:
            return True
        settings = (
            asdict(request.settings)
            | asdict(request.output)
            | {"mask": request.mask, "checkpoint": str(request.checkpoint)}
        )
        left_out = (*request.inputs.others, *request.inputs.links)
        text = json_report(self.records, self._totals(), settings, left_out, interrupted)
        if request.talk.json_file is None:
            sys.stdout.write(text)
            return True
        try:
            write_json(request.talk.json_file, text)
        except AlloSR2Error as error:
            self._write(sys.stderr.write, f"error: {error}")
            return False
        return True

    def _totals(self) -> Totals:
        return Totals.of(self.records, time.perf_counter() - self.started)

    def _fail(self, record: Record) -> None:
        self.records.append(record)
        self._write(sys.stderr.write, f"failed: {record.error}")

    def _note(self, text: str) -> None:
        if not self.request.talk.quiet:
            self._write(sys.stderr.write, f"note: {text}")

    def _say(self, text: str) -> None:
        """On standard output, where that is not for the JSON alone."""
        if not self.request.talk.quiet:
            self._write((sys.stderr if self.request.talk.json == "-" else sys.stdout).write, text)

    def _write(self, write: Callable[[str], object], line: str) -> None:
        self.progress.clear()
        write(line + "\n")


def _reason(source: Path, error: Exception) -> str:
    """Why a picture failed, with its name."""
    reason = str(error) or type(error).__name__
    if str(source) not in reason:
        reason = f"{source}: {reason}"
    if isinstance(error, (MemoryError, RuntimeError)):
        reason += " (if memory ran out: a smaller --scale or --tile needs less)"
    return reason
