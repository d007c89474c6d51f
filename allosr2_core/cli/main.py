"""The command line: upscale a picture or a folder of pictures, inspect a checkpoint, move adapters in and out.

Results go to standard output, one line a picture and a summary; progress, notes and failures go to standard error.
The exit codes are those of EXIT_CODES.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import precision
from ..bases.registry import read_base
from ..checkpoint.describe import describe
from ..checkpoint.format import EMBEDDED_NAME, Checkpoint, embedded_path, load_checkpoint
from ..devices import AUTO, KINDS, device_of
from ..errors import AlloSR2Error, one_line
from ..options import check_options
from ..pipeline import Pipeline
from . import values as types
from .adapters import add_commands
from .names import FORMATS
from .option_arguments import add_options, options_of
from .paths import find_inputs
from .settings import OutputSettings, Talk
from .upscale import Request, upscale_pictures

OK, SOME_FAILED, UNUSABLE, UNWRITABLE, INTERRUPTED, NO_READER = 0, 1, 2, 74, 130, 141
EXIT_CODES = (
    "Exit code: 0 all good (skipped pictures too); 1 a picture, the summary's file or the inspected checkpoint failed, "
    "the other pictures are done; 2 nothing was done, because the arguments, the paths or the checkpoint cannot be "
    "used; 74 the output cannot be written, 130 interrupted, 141 nobody reads the output any more: the finished "
    "pictures are kept."
)


def main(arguments: Sequence[str]) -> int:
    """Run `python -m allosr2_core ARGUMENTS`; returns the exit code (argparse itself exits with 2 on a wrong usage)."""
    if sys.stdout is None or sys.stderr is None:  # closed by the shell: >&-
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be valid in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except AlloSR2Error as error:
        _complain(str(error))
        return UNUSABLE
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return NO_READER
    except OSError as error:
        if error.filename is not None:
            _complain(str(error))
            return UNUSABLE
        _drop_output()
        _complain(f"the output could not be written: {error}")
        return UNWRITABLE


def _drop_output() -> None:
    """Nothing more on standard output; the interpreter flushes at its end what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser() -> argparse.ArgumentParser:
    """Every option with its meaning, range and default."""
    parser = argparse.ArgumentParser(
        prog="python -m allosr2_core",
        description="AlloSR2: restore and enlarge photographs with one evaluation of a flow model.",
        epilog=EXIT_CODES,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    upscale = commands.add_parser("upscale", help="enlarge a picture or every picture of a folder", epilog=EXIT_CODES)
    upscale.add_argument("source", metavar="IN", help="a picture, or a folder")
    upscale.add_argument(
        "target",
        metavar="OUT",
        help="a .png, .jpg, .webp or .tif file, or a folder (a new one may end in a slash to tell it from a file)",
    )
    add_options(upscale)
    upscale.add_argument(
        "--mask",
        metavar="FILE",
        help="a grey picture of the input's size: black keeps the enlarged original, white takes the restored picture",
    )
    _add_file_options(upscale)
    upscale.add_argument("--checkpoint", type=Path, help=f"a .safetensors file (default: {EMBEDDED_NAME})")
    upscale.add_argument("--transformer", type=Path, metavar="FILE", help="for an adapter: its base's transformer")
    upscale.add_argument("--vae", type=Path, metavar="FILE", help="for an adapter: its base's VAE")
    upscale.add_argument(
        "--dtype",
        choices=precision.WORDS,
        default=precision.AUTO,
        help="what the networks compute in. fp32: the exact values. auto: bf16 where the processor is fast "
        "in it (AMX, or AMD with AVX512-BF16), some 65 dB from the exact values; on a CUDA device bf16 or fp16; fp32 "
        f"elsewhere (default {precision.AUTO})",
    )
    upscale.add_argument(
        "--device",
        default=AUTO,
        metavar="DEVICE",
        help=f"where the networks run: {', '.join(KINDS)}, or one of several such as cuda:1. auto: a CUDA device where "
        f"there is one, each process of a launcher its own; else the processor (default {AUTO})",
    )
    upscale.add_argument(
        "--threads", type=types.whole(1, 1024), metavar="N", help="processor threads (default: torch decides)"
    )
    upscale.add_argument("--quiet", action="store_true", help="only failures and the exit code")
    upscale.set_defaults(run=_run_upscale)

    inspect = commands.add_parser("inspect", help="what is in a checkpoint, or why it is refused", epilog=EXIT_CODES)
    inspect.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, nargs="?", help=f"(default: {EMBEDDED_NAME})")
    inspect.set_defaults(run=_run_inspect)
    add_commands(commands)
    return parser


def _add_file_options(upscale: argparse.ArgumentParser) -> None:
    """What is read, and how it is stored."""
    upscale.add_argument("--recursive", action="store_true", help="with the folders below IN; OUT gets the same tree")
    upscale.add_argument("--skip-existing", action="store_true", help="leave pictures alone whose result exists")
    upscale.add_argument(
        "--format", choices=tuple(FORMATS), help="of all results (default: as each name says, what cannot is .png)"
    )
    upscale.add_argument(
        "--quality", type=types.whole(1, 100), default=95, metavar="Q", help="of JPEG and WebP, 1 to 100 (default 95)"
    )
    upscale.add_argument(
        "--depth",
        choices=("8", "16", "auto"),
        default="auto",
        help="bits a channel; auto: 16 where the input has more than 8 and the result is .png or .tif (default)",
    )
    upscale.add_argument(
        "--strip", action="store_true", help="drop metadata (EXIF, GPS, XMP, text); a needed colour profile stays"
    )
    upscale.add_argument(
        "--compare", action="store_true", help="also write NAME.compare.png: left plainly enlarged, right the result"
    )
    upscale.add_argument(
        "--json", metavar="FILE", help="write a summary as JSON; - for standard output, which then has nothing else"
    )


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
    checkpoint = options.checkpoint or embedded_path()
    settings = options_of(options)
    check_options(settings)
    request = Request(
        inputs=find_inputs(options.source, options.target, options.recursive),
        settings=settings,
        output=OutputSettings(
            format=options.format,
            quality=options.quality,
            depth=options.depth,
            strip=options.strip,
            compare=options.compare,
            skip_existing=options.skip_existing,
        ),
        talk=Talk(quiet=options.quiet, json=options.json),
        mask=options.mask,
        checkpoint=checkpoint,
        dtype=options.dtype,
        device=options.device,
    )
    device = device_of(options.device)
    dtype = precision.dtype_of(options.dtype, device)
    if dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False  # fp32 means the exact values on every device
    good = upscale_pictures(
        request, lambda: _upscaler(load_checkpoint(checkpoint), options.transformer, options.vae, dtype, device)
    )
    return OK if good else SOME_FAILED


def _upscaler(
    checkpoint: Checkpoint, transformer: Path | None, vae: Path | None, dtype: torch.dtype, device: torch.device
) -> Pipeline:
    """The networks of a standalone checkpoint, or of an adapter on the files of its base."""
    if checkpoint.config.adapter:
        if transformer is None or vae is None:
            raise AlloSR2Error(
                f"expected --transformer FILE and --vae FILE: the checkpoint is an adapter for {checkpoint.config.base}"
            )
        return Pipeline.from_adapter(checkpoint, *read_base(checkpoint.config, transformer, vae, dtype), device=device)
    if transformer is not None or vae is not None:
        raise AlloSR2Error("expected no --transformer and no --vae: the checkpoint has its own")
    return Pipeline.from_checkpoint(checkpoint, dtype=dtype, device=device)


def _complain(message: str) -> None:
    with contextlib.suppress(OSError):  # nobody can be told
        sys.stderr.write(f"error: {one_line(message)}\n")
        sys.stderr.flush()
