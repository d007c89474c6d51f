"""A row of the table made by a running ComfyUI, from the example workflow as it stands but for the picture's name."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comfy_server import ComfyServer

from .fingerprint import read_values
from .flux_base import flux_files
from .pictures import REPOSITORY, write_source
from .table import Record, Row

PICTURE = "example.png"
"""What the workflows load: what ComfyUI brings."""
EXAMPLES = REPOSITORY / "example_workflows"
_COMFY = Path(sys.executable).with_name("comfy")
_ARGUMENTS = ("--cpu", "--force-fp32")
"""Of the host: results are compared in fp32, whatever the networks would compute in on this machine."""


@contextmanager
def golden_server(root: Path, base: Path) -> Iterator[ComfyServer]:
    """A ComfyUI that has what the workflows need; root is its tree, base an empty folder."""
    with ComfyServer(root, base, arguments=_ARGUMENTS) as server, flux_files(server.models):
        yield server


def kind_of_host(server: ComfyServer, kind: str) -> str:
    """A kind of machine, with the host's version: core nodes take part."""
    return f"{kind}, ComfyUI {server.get('/system_stats')['system']['comfyui_version']}"


def make(row: Row, server: ComfyServer, kind: str, home: Path) -> Record:
    """Make a result; home: an empty folder for comfy-cli, which runs what is not in API format, as a user would."""
    file = EXAMPLES / (row.workflow or "")
    text = file.read_text(encoding="utf-8")
    if text.count(f'"{PICTURE}"') != 1:
        raise RuntimeError(f"{row.workflow}: expected one picture with the name {PICTURE}")
    # With a name of its own: an equal workflow would save nothing.
    source = write_source(row.picture, server.input / f"golden-{uuid.uuid4().hex}")
    text = text.replace(f'"{PICTURE}"', json.dumps(source.name))
    before = set(server.output.rglob("*.png"))
    if file.parent.name == "api":
        server.run(json.loads(text))
    else:
        _run_canvas(text, server, home)
    (target,) = set(server.output.rglob("*.png")) - before
    return Record.of(read_values(source), read_values(target), kind)


def _run_canvas(text: str, server: ComfyServer, home: Path) -> None:
    file = home / "workflow.json"
    file.write_text(text, encoding="utf-8")
    command = [str(_COMFY), "--skip-prompt", "run", "--workflow", str(file), "--wait"]
    settings = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [*command, "--host", "127.0.0.1", "--port", str(server.port)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"comfy run: {done.stdout}{done.stderr}{server.log_tail()}")
