"""The command line: upscale a picture or a folder of pictures, inspect a checkpoint, move adapters in and out.

Results go to standard output, one line a picture and a summary; progress, notes and failures go to standard error.
Exit code: 0 all good, 1 some picture failed or the inspected checkpoint was refused, 2 nothing was done because the
arguments or the checkpoint cannot be used, 130 interrupted.
"""

import argparse
import io
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .bases import read_base
from .checkpoint import EMBEDDED_NAME, Checkpoint, embedded_path, load_checkpoint
from .cli_adapters import add_commands
from .color import COLOR_METHODS
from .errors import AlloSR2Error
from .image.geometry import split_alpha
from .image.read import LoadedImage, load_image
from .image.write import save_image
from .inspection import describe
from .jobs import Job, plan_jobs
from .progress import Progress
from .upscale import DEFAULT_OVERLAP, count_ticks, prepare
from .upscaler import Upscaler

OK, SOME_FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
T_WORDS = ("predicted", "calibrated")


@dataclass(frozen=True)
class UpscaleSettings:
    """What `upscale` does to every picture; the fields are the command line's options."""

    scale: float | None
    """Factor above 0, or None when long_edge is given."""
    long_edge: int | None
    """Longer side of the result, px, or None."""
    t: float | str | None
    """Time in (0, 1), "predicted", "calibrated", or None: what the checkpoint recommends."""
    realism: float
    """0 is the enlarged input, 1 as trained."""
    tile: int
    """Side of a tile in result px; 0 is automatic."""
    overlap: int
    """Overlap of neighbouring tiles, px."""
    color: str
    """One of COLOR_METHODS."""
    shifted: bool
    """Whether to average with the step on a shifted grid."""


def main(arguments: Sequence[str]) -> int:
    """Run `python -m allosr2_core ARGUMENTS`; returns the exit code (argparse itself exits with 2 on a wrong usage)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be valid in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except AlloSR2Error as error:
        _complain(str(error))
        return UNUSABLE
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    """Every option with its meaning, range and default."""
    parser = argparse.ArgumentParser(
        prog="python -m allosr2_core",
        description="AlloSR2: restore and enlarge photographs with one evaluation of a flow model.",
        epilog="Exit code: 0 all good, 1 some failed, 2 nothing was done.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    upscale = commands.add_parser("upscale", help="enlarge a picture or every picture of a folder")
    upscale.add_argument(
        "source", metavar="IN", type=Path, help="a picture, or a folder (its subfolders are left alone)"
    )
    upscale.add_argument("target", metavar="OUT", type=Path, help="a .png, .jpg or .webp file, or a folder")
    size = upscale.add_mutually_exclusive_group()
    size.add_argument("--scale", type=_positive, help="factor; the result is exactly round(H x S) (default 4)")
    size.add_argument("--long-edge", type=_whole(1), metavar="PX", help="length of the result's longer side")
    upscale.add_argument(
        "--t",
        type=_time,
        metavar="T",
        help="where on the flow to start: a number between 0 and 1 (higher rebuilds more), 'predicted' from each "
        "picture, 'calibrated' for the checkpoint's average (default: what the checkpoint recommends)",
    )
    upscale.add_argument(
        "--realism",
        type=_not_negative,
        default=1.0,
        help="0 the enlarged input, 1 as trained (default), above exaggerates",
    )
    upscale.add_argument(
        "--tile", type=_whole(0), default=0, metavar="PX", help="side of a tile; 0 automatic (default)"
    )
    upscale.add_argument(
        "--overlap", type=_whole(0), default=DEFAULT_OVERLAP, metavar="PX", help="of tiles (default %(default)s)"
    )
    upscale.add_argument(
        "--shifted",
        action="store_true",
        help="step again on a grid shifted by half a patch and average: twice the time",
    )
    upscale.add_argument(
        "--color", choices=COLOR_METHODS, default="none", help="give the result the input's colours (default none)"
    )
    upscale.add_argument("--checkpoint", type=Path, help=f"a .safetensors file (default: {EMBEDDED_NAME})")
    upscale.add_argument("--transformer", type=Path, metavar="FILE", help="for an adapter: its base's transformer")
    upscale.add_argument("--vae", type=Path, metavar="FILE", help="for an adapter: its base's VAE")
    upscale.add_argument("--threads", type=_whole(1), metavar="N", help="processor threads (default: torch decides)")
    upscale.add_argument("--quiet", action="store_true", help="only failures and the exit code")
    upscale.set_defaults(run=_run_upscale)

    inspect = commands.add_parser("inspect", help="what is in a checkpoint, or why it is refused")
    inspect.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, nargs="?", help=f"(default: {EMBEDDED_NAME})")
    inspect.set_defaults(run=_run_inspect)
    add_commands(commands)
    return parser


def _run_inspect(options: argparse.Namespace) -> int:
    try:
        sys.stdout.write(describe(options.checkpoint or embedded_path()))
    except AlloSR2Error as error:
        _complain(str(error))
        return SOME_FAILED
    return OK


def _run_upscale(options: argparse.Namespace) -> int:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    planned = plan_jobs(options.source, options.target)
    upscaler = _upscaler(load_checkpoint(options.checkpoint or embedded_path()), options.transformer, options.vae)
    settings = UpscaleSettings(
        scale=4.0 if options.scale is None and options.long_edge is None else options.scale,
        long_edge=options.long_edge,
        t=options.t,
        realism=options.realism,
        tile=options.tile,
        overlap=options.overlap,
        color=options.color,
        shifted=options.shifted,
    )
    started = time.perf_counter()
    progress = Progress(sys.stderr, len(planned.jobs), enabled=not options.quiet)
    if planned.skipped and not options.quiet:
        names = ", ".join(path.name for path in planned.skipped[:5]) + (" ..." if len(planned.skipped) > 5 else "")
        _say(sys.stderr.write, progress, f"note: left out {len(planned.skipped)}, no picture by the suffix: {names}")
    failed = 0
    for job in planned.jobs:
        progress.begin(job.source.name)
        try:
            result = _upscale_one(upscaler, job, settings, progress)
        except (
            AlloSR2Error,
            OSError,
            MemoryError,
            RuntimeError,
        ) as error:  # torch reports a lack of memory as the last
            failed += 1
            reason = str(error) or type(error).__name__
            if str(job.source) not in reason:
                reason = f"{job.source}: {reason}"
            if isinstance(error, (MemoryError, RuntimeError)):
                reason += " (if memory ran out: a smaller --scale or --tile needs less)"
            _say(sys.stderr.write, progress, f"failed: {reason}")
        else:
            if result.note and not options.quiet:
                _say(sys.stderr.write, progress, f"note: {job.source}: {result.note}")
            if not options.quiet:
                _say(sys.stdout.write, progress, result.line)
        finally:
            progress.end()
    progress.clear()
    if not options.quiet:
        done = len(planned.jobs) - failed
        sys.stdout.write(summary(done, failed, time.perf_counter() - started, peak_memory_mib()) + "\n")
    return SOME_FAILED if failed else OK


def _upscaler(checkpoint: Checkpoint, transformer: Path | None, vae: Path | None) -> Upscaler:
    """The networks of a standalone checkpoint, or of an adapter on the files of its base."""
    if checkpoint.config.adapter:
        if transformer is None or vae is None:
            raise AlloSR2Error(
                f"expected --transformer FILE and --vae FILE: the checkpoint is an adapter for {checkpoint.config.base}"
            )
        return Upscaler.from_adapter(checkpoint, *read_base(checkpoint.config, transformer, vae))
    if transformer is not None or vae is not None:
        raise AlloSR2Error("expected no --transformer and no --vae: the checkpoint has its own")
    return Upscaler.from_checkpoint(checkpoint)


@dataclass(frozen=True)
class _Done:
    line: str
    note: str


def _upscale_one(upscaler: Upscaler, job: Job, settings: UpscaleSettings, progress: Progress) -> _Done:
    """Read, upscale, write one picture."""
    started = time.perf_counter()
    loaded: LoadedImage = load_image(job.source)
    image_BHWC = loaded.image_BHWC
    # Sizes only: a picture without pixels goes the same way, so the count cannot differ from the work.
    sizes = prepare(image_BHWC.to("meta"), upscaler.config, scale=settings.scale, long_edge=settings.long_edge)
    progress.expect(sum(count_ticks(sizes, upscaler.config, settings.tile, settings.overlap)))
    result_BHWC = upscaler.upscale(
        image_BHWC,
        scale=settings.scale,
        long_edge=settings.long_edge,
        t=settings.t,
        realism=settings.realism,
        tile=settings.tile,
        overlap=settings.overlap,
        color=settings.color,
        shifted=settings.shifted,
        tick=progress.tick,
    )
    rgb_BHWC, alpha_BHW = split_alpha(result_BHWC)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AlloSR2Error(f"{job.target.parent}: could not be created: {error}") from error
    save_image(job.target, rgb_BHWC[0], None if alpha_BHW is None else alpha_BHW[0])
    (height, width), (new_height, new_width) = loaded.rgb_HWC.shape[:2], rgb_BHWC.shape[1:3]
    seconds = time.perf_counter() - started
    line = f"{job.source} -> {job.target}  {width}x{height} -> {new_width}x{new_height}  {seconds:.1f} s"
    return _Done(line=line, note=loaded.note)


def summary(done: int, failed: int, seconds: float, peak_mib: float | None) -> str:
    """The last line: what was done, how long it took, the most memory the process ever held."""
    text = f"{done} picture{'' if done == 1 else 's'}"
    text += f", {failed} failed" if failed else ""
    text += f", {seconds:.1f} s"
    return text if peak_mib is None else f"{text}, peak memory {peak_mib:.0f} MiB"


def peak_memory_mib() -> float | None:
    """Peak resident memory of this process in MiB; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def _say(write: Callable[[str], object], progress: Progress, line: str) -> None:
    progress.clear()
    write(line + "\n")


def _complain(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text}")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def _not_negative(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number of 0 or more, got {text}")
    return value


def _whole(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, got {text}")
        return value

    return number


def _time(text: str) -> float | str:
    if text in T_WORDS:
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, {' or '.join(T_WORDS)}, got {text}")
    return value
