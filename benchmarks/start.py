"""What the pack adds to ComfyUI's start, and how long the first picture takes: medians over fresh processes.

Each process imports ComfyUI's own modules first (not the extra nodes that come with it), so that only what the pack
itself brings is counted, and then lets ComfyUI load the pack as one of its custom nodes. The pictures go through the
pack's nodes with their default settings, on the CPU.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from allosr2_core.errors import AlloSR2Error
from tools.comfyui import FetchError, fetch

from .measure import Row

BENCH = "start"
PACK = Path(__file__).resolve().parent.parent
SIDE = 128
"""Of the input, px."""
PROCESSES, QUICK_PROCESSES = 9, 3
LIMIT = 0.3
"""What importing the pack may take, s."""
HOST = "comfyui's own modules"


def run(quick: bool) -> list[Row]:
    """Rows in the order a user meets them; `ratio` is the pack's import over that of ComfyUI's modules."""
    try:
        root = fetch()
    except FetchError as error:
        raise AlloSR2Error(str(error)) from error
    found = [in_fresh_process(root) for _ in range(QUICK_PROCESSES if quick else PROCESSES)]
    host, pack, load = (statistics.median(one[key] for one in found) for key in ("host", "pack", "load"))
    first, second = (statistics.median(one["pictures"][number] for one in found) for number in range(2))
    picture = f"{SIDE} px"
    return [
        Row(BENCH, HOST, "import", host),
        Row(BENCH, "the pack", "import", pack, ratio=pack / host, against=HOST, figures={"limit": LIMIT}),
        Row(BENCH, "checkpoint, MODEL and VAE", "embedded", load),
        Row(BENCH, "first picture", picture, first),
        Row(BENCH, "second picture", picture, second),
    ]


def in_fresh_process(root: Path) -> dict[str, Any]:
    """The seconds start_worker.py prints. AlloSR2Error with the end of its log when it fails."""
    worker = Path(__file__).with_name("start_worker.py")
    command = [sys.executable, str(worker), str(root), str(PACK), str(SIDE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed command
    if done.returncode:
        raise AlloSR2Error(f"{worker.name} failed with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
