"""One real ComfyUI server: two clients with pictures of mixed sizes and two checkpoints, and prompts that nobody sends.

Every prompt has a picture file of its own, since ComfyUI keeps what it made of a file. Equal pixels with equal settings
give equal pictures, whoever sent them and whatever ran between.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
for folder in ("tools", "tests/support"):
    if str(REPOSITORY / folder) not in sys.path:
        sys.path.insert(0, str(REPOSITORY / folder))

import comfyui  # noqa: E402
from comfy_server import ComfyServer, ServerError, WorkflowError  # noqa: E402
from small_checkpoint import save_small_checkpoint, small_config  # noqa: E402

from .suites import Count, suite  # noqa: E402

WORKFLOW = json.loads((REPOSITORY / "example_workflows" / "api" / "allosr2_quick.json").read_text())
NODE = "AlloSR2Upscale"
OURS = (NODE, "AlloSR2PickFromList", "AlloSR2Loader", "AlloSR2OneStepUpscale", "TiledDecode")
"""The node, and those it runs."""
SMALL = "small.safetensors"
SIZES = ((64, 48), (33, 21), (120, 80), (1, 1), (90, 150), (200, 40))
"""(width, height) px."""
SMALL_EVERY = 5
"""Of a client's prompts, one in so many asks for the other checkpoint."""
ROUND = 2 * len(SIZES) * SMALL_EVERY
"""Prompts in which every size has been with both checkpoints. Memory grows in the first one, and no more."""
MEMORY, SPEED = 1.05, 1.1
"""What the end may be of the beginning."""
HOSTILE: tuple[Any, ...] = (
    *(None, "", -1, 0, 7, 1e308, -1e308, float("nan"), float("inf"), 10**30, True, "x" * 100_000, "../../etc/passwd"),
    *("allosr2\nmini", [], {}, {"a": [1]}, ["404", 0], ["1", 9], ["1", -1], [[["1", 0]]], "0 or 1", "4.0", "\x00"),
)
"""Values for any input."""


@dataclass(frozen=True)
class Size:
    """How much the suite does."""

    prompts: int
    waiting: int
    """In the queue at a time."""
    hostile: int
    measured: bool
    """Whether memory and speed count: they need an idle machine and many prompts."""


QUICK, FULL = Size(24, 8, 16, measured=False), Size(300, 50, 100, measured=True)


@dataclass
class Finished:
    """What has come back, in the order it did; both clients write to it."""

    server: ComfyServer
    counted: Count
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """Bytes that the server has after each prompt."""
    pictures: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, number: int, key: tuple[int, str], result: np.ndarray | str) -> None:
        """A picture, or why there is none."""
        with self.lock:
            self.counted.tried += 1
            self.seconds.append(time.monotonic())
            self.memory.append(psutil.Process(self.server.pid).memory_info().rss)
            if isinstance(result, str):
                self.counted.lost += 1
                self.counted.said.append(f"server: prompt {number}: {result}")
            elif not np.array_equal(self.pictures.setdefault(key, result), result):
                self.counted.failed += 1
                self.counted.said.append(f"server: prompt {number}: another picture than before of {key}")


@suite("server")
def run(full: bool) -> Count:
    """Load, then hostile prompts, then one picture more, all on one server."""
    size, counted = FULL if full else QUICK, Count()
    with tempfile.TemporaryDirectory() as name, _server(Path(name)) as server:
        finished = Finished(server, counted)
        clients = [threading.Thread(target=_client, args=(finished, size, number)) for number in range(2)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        if size.measured:
            _measure(finished)
        for number in range(size.hostile):
            _hostile(server, counted, number)
        _client(finished, Size(2, 1, 0, measured=False), 0, first=size.prompts)
    for line in counted.said:
        sys.stderr.write(line + "\n")
    return counted


@contextmanager
def _server(base: Path) -> Iterator[ComfyServer]:
    (base / "models" / "allosr2").mkdir(parents=True)
    save_small_checkpoint(base / "models" / "allosr2" / SMALL, config=small_config())
    with ComfyServer(comfyui.fetch(), base, arguments=("--cpu", "--force-fp32")) as server:
        yield server


def _client(finished: Finished, size: Size, which: int, first: int = 0) -> None:
    """Send every second prompt and read its picture, with half of the queue's places."""
    waiting: deque[tuple[int, tuple[int, str], str]] = deque()
    numbers = deque(range(first + which, first + size.prompts, 2))
    while numbers or waiting:
        while numbers and len(waiting) < max(1, size.waiting // 2):
            number = numbers.popleft()
            turn = number // 2  # both clients send the same
            key = (turn % len(SIZES), SMALL if turn % SMALL_EVERY == SMALL_EVERY - 1 else "")
            waiting.append((number, key, finished.server.queue(_prompt(finished.server, number, key))))
        number, key, prompt = waiting.popleft()
        try:
            (path,) = finished.server.wait(prompt).images
            with Image.open(path) as picture:
                finished.add(number, key, np.asarray(picture))
        except (WorkflowError, ServerError, ValueError, OSError) as error:
            finished.add(number, key, f"{type(error).__name__}: {error}")


def _prompt(server: ComfyServer, number: int, key: tuple[int, str]) -> dict[str, Any]:
    kind, checkpoint = key
    width, height = SIZES[kind]
    name = f"{number}.png"
    pixels = np.random.default_rng(kind).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(server.input / name)
    return _changed({"LoadImage": {"image": name}, NODE: {"checkpoint": checkpoint} if checkpoint else {}})


def _changed(changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The workflow with other inputs, by class of node."""
    workflow = copy.deepcopy(WORKFLOW)
    for node in workflow.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    return workflow


def _measure(finished: Finished) -> None:
    """Two cases more: memory and time of the last round and of the second (on a machine that does nothing else)."""
    memory, seconds = finished.memory, finished.seconds
    grown = median(memory[-ROUND:]) / median(memory[ROUND : 2 * ROUND])  # single prompts go up and down by 5 %
    slower = (seconds[-1] - seconds[-1 - ROUND]) / (seconds[2 * ROUND - 1] - seconds[ROUND - 1])
    for what, ratio, most in (("memory", grown, MEMORY), ("seconds of a round", slower, SPEED)):
        finished.counted.tried += 1
        if ratio > most:
            finished.counted.failed += 1
            finished.counted.said.append(f"server: {what} at the end: {ratio:.3f} of the beginning's")


def _hostile(server: ComfyServer, counted: Count, number: int) -> None:
    """A prompt with one wrong input: refused by the host, or answered by the node in one line, or worked on."""
    chance = random.Random(number)  # noqa: S311 - the same case each time
    name = f"hostile-{number}.png"
    Image.new("RGB", (24, 16), (number % 256, 90, 40)).save(server.input / name)
    workflow = _changed({"LoadImage": {"image": name}})
    (node,) = [node for node in workflow.values() if node["class_type"] == NODE]
    key = chance.choice([*node["inputs"], "mask", "t", "model", "vae", "unknown"])
    value = HOSTILE[number % len(HOSTILE)]
    node["inputs"][key] = value
    case = f"server: hostile prompt {number}: {key} = {str(value)[:40]!r}"
    counted.tried += 1
    try:
        status, body = server.request("POST", "/prompt", {"prompt": workflow})
        if status not in (200, 400):
            raise AssertionError(f"status {status}: {body[:200]!r}")
        answer = json.loads(body)
        if status == 200 and not answer.get("node_errors"):
            server.wait(answer["prompt_id"], timeout=60)
    except WorkflowError as error:
        line = str(error)
        if error.node_type in OURS and not (error.exception_type.endswith("AlloSR2Error") and _readable(line)):
            counted.failed += 1
            counted.said.append(f"{case}: {error.exception_type}: {line[:200]!r}")
    except AssertionError as error:
        counted.failed += 1
        counted.said.append(f"{case}: {error}")
    except (ServerError, OSError) as error:
        counted.lost += 1
        counted.said.append(f"{case}: {type(error).__name__}: {str(error)[:200]!r}")


def _readable(line: str) -> bool:
    return "\n" not in line and len(line) < 1000
