"""A row of the table made by the command line, in this process: with `python -m allosr2_core upscale` as it stands."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .fingerprint import read_values
from .pictures import write_mask, write_source
from .table import Record, Row

THREADS = 1
_ALWAYS = ("--threads", str(THREADS), "--quiet", "--dtype", "fp32")
"""Results are compared in fp32, whatever the networks would compute in on this machine."""


def make(row: Row, folder: Path, kind: str, *more: str) -> Record:
    """Make a result in an empty folder; more: further options, which win over the row's."""
    source = write_source(row.picture, folder / "source")
    mask = write_mask(source, folder / "mask.png")
    arguments = [mask.as_posix() if argument == "{mask}" else argument for argument in row.arguments or ()]
    target = folder / "result.png"
    upscale([source.as_posix(), target.as_posix(), *arguments, *more])
    return Record.of(read_values(source), read_values(target), kind)


def upscale(arguments: Sequence[str]) -> None:
    """Run the program; RuntimeError unless its exit code is 0."""
    before, threads = sys.argv, torch.get_num_threads()
    sys.argv = ["allosr2_core", "upscale", *arguments, *_ALWAYS]
    try:
        runpy.run_module("allosr2_core", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"upscale {' '.join(arguments)}: expected exit code 0, got {end.code}") from end
    finally:
        sys.argv = before
        torch.set_num_threads(threads)
