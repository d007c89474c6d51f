"""The work of `upscale`: every picture in turn, and what is said of it."""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import AlloSR2Error, one_line
from ..options import UpscaleOptions
from ..pipeline import Pipeline
from ..precision import name_of
from .mask import check_mask, load_mask
from .paths import Inputs
from .picture import Worker
from .processes import Processes
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
    dtype: str
    """One of `precision.WORDS`, for the report; each picture's record has what it was computed in."""
    device: str
    """As `devices.device_of` reads it, likewise."""


def upscale_pictures(request: Request, load_upscaler: Callable[[], Pipeline]) -> bool:
    """Restore every picture of a request, or this process's share of them; whether all went well.

    What the headers already rule out is said first. load_upscaler is called once, when there is work. Raises
    AlloSR2Error, before any work, for what concerns all pictures.
    """
    with Processes() as processes:
        others = (request.checkpoint, *(() if request.mask is None else (Path(request.mask),)))
        if request.mask is not None:
            check_mask(request.mask, request.inputs)
        plan = processes.from_first(lambda: _plan(request, processes, others))
        mask_1HW = None
        if request.mask is not None and plan.planned:
            mask_1HW = load_mask(request.mask, plan.planned[0].sizes)
        mine = [plan.planned[index] for index in processes.share([each.work for each in plan.planned])]
        if processes.count == 1:
            mine = list(plan.planned)  # in the order of the inputs
        upscaler = load_upscaler() if mine else None
        shown = processes.first and not request.talk.quiet
        progress = Progress(sys.stderr, len(mine), sum(each.work for each in mine), enabled=shown)
        run = _Run(request, plan, progress, processes)
        try:
            run.begin()
            if upscaler is not None:
                worker = Worker(upscaler, request.settings, request.output, mask_1HW, progress)
                for planned in mine:
                    run.do(planned, worker)
        except KeyboardInterrupt:
            progress.clear()
            run.write_json(interrupted=True)
            raise
        return run.finish()


def _plan(request: Request, processes: Processes, others: tuple[Path, ...]) -> Survey:
    """What there is to do. Where several processes share it, results that exist are left alone."""
    output = replace(request.output, skip_existing=True) if processes.count > 1 else request.output
    plan = survey(request.inputs, request.settings, output, others)
    if request.talk.json_file is not None:
        check_json_file(request.talk.json_file, plan.pairs, others)
    return plan


class _Run:
    """One call of `upscale` under way: its records so far, and the streams it speaks on."""

    def __init__(self, request: Request, plan: Survey, progress: Progress, processes: Processes) -> None:
        self.request, self.plan, self.progress, self.processes = request, plan, progress, processes
        self.started = time.perf_counter()
        self.records: list[Record] = []

    def begin(self) -> None:
        """Say what was left out, and what cannot be done or need not be; one process does."""
        if not self.processes.first:
            return
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
            dtype, device = name_of(worker.upscaler.dtype), str(worker.upscaler.device)
            record = Record(pair, DONE, planned, time.perf_counter() - started, notes, dtype=dtype, device=device)
            self.records.append(record)
            for note in notes:
                self._note(f"{pair.source}: {note}")
            self._say(record.line())
        finally:
            self.progress.end(finished)

    def finish(self) -> bool:
        """Say the summary of all processes and write it as JSON; whether all went well, the same in each of them."""
        self.progress.clear()
        good = True
        try:
            self.records = [record for records in self.processes.gathered(self.records) for record in records]
        except AlloSR2Error as error:  # this process's own results are there
            self._write(sys.stderr.write, f"error: {error}")
            good = False
        good = good and all(record.status != FAILED for record in self.records)
        if not self.processes.first:
            return good
        self._say(self._totals().line())
        return self.write_json(interrupted=False) and good

    def write_json(self, interrupted: bool) -> bool:
        """Write the summary as JSON, if one is asked for; whether that went well."""
        request = self.request
        if request.talk.json is None:
            return True
        settings = (
            asdict(request.settings)
            | asdict(request.output)
            | {"mask": request.mask, "checkpoint": str(request.checkpoint)}
            | {"dtype": request.dtype, "device": request.device}
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
        write(one_line(line) + "\n")  # names of files may hold line breaks and commands for terminals


def _reason(source: Path, error: Exception) -> str:
    """Why a picture failed, with its name."""
    reason = str(error) or type(error).__name__
    if one_line(str(source)) not in reason:
        reason = f"{source}: {reason}"
    if isinstance(error, (MemoryError, RuntimeError)):
        reason += " (if memory ran out: a smaller --scale or --tile needs less)"
    return reason
