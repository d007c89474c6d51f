"""A real ComfyUI server for the tests and the demo: start it, queue workflows, read what happened, stop it.

with ComfyServer(comfyui.fetch(), base_dir) as server:
    result = server.run(json.loads(Path("workflow_api.json").read_text()))
    print(result.images)
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import front_ends

REPOSITORY = Path(__file__).resolve().parent.parent
PACK_NAME = "allosr2"
# ComfyUI's own audio nodes need torchaudio, which nothing here uses; every other failed import is an error.
TOLERATED_IMPORT_FAILURES = ("nodes_audio.py", "nodes_audio_encoder.py")

JSON = dict[str, Any]


class ServerError(RuntimeError):
    """The server did not start, did not answer, or failed to import a pack; the message quotes its log."""


class WorkflowError(RuntimeError):
    """A workflow was refused or failed; the message names the node and what it said."""

    def __init__(
        self, message: str, *, node_type: str = "", exception_type: str = "", interrupted: bool = False
    ) -> None:
        super().__init__(message)
        self.node_type = node_type
        """Class of the node that failed; empty when the whole prompt was refused."""
        self.exception_type = exception_type
        """Qualified name of the exception the node raised."""
        self.interrupted = interrupted
        """True when the run was cancelled."""


@dataclass(frozen=True)
class WorkflowResult:
    """What a finished workflow left behind."""

    prompt_id: str
    outputs: JSON
    """Node id -> what that node showed, as /history gives it."""
    images: tuple[Path, ...]
    """The files its output nodes wrote, in node order."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ComfyServer:
    """A ComfyUI server on 127.0.0.1 with this pack installed as a link; use it as a context manager.

    `root` is a ComfyUI tree, `base_dir` the folder that holds this server's input, output, models and custom_nodes
    (created). `port` 0 takes a free one. `pack` None starts without the pack. `front_end`: the folder of ComfyUI's web
    page, the installed one by default.
    """

    def __init__(
        self,
        root: Path,
        base_dir: Path,
        *,
        port: int = 0,
        pack: Path | None = REPOSITORY,
        start_timeout: float = 180.0,
        arguments: tuple[str, ...] = ("--cpu",),
        front_end: Path | None = None,
    ) -> None:
        self.root, self.base, self.pack = root.resolve(), base_dir.resolve(), pack
        self.port = port or free_port()
        self.start_timeout = start_timeout
        self.arguments = arguments
        self.front_end = front_end or front_ends.installed()
        self.input, self.output, self.models = (self.base / name for name in ("input", "output", "models"))
        self.log_path = self.base / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> ComfyServer:
        self._lay_out()
        command = [
            *(sys.executable, str(REPOSITORY / "tools" / "launch_comfyui.py"), str(self.root)),
            *("--listen", "127.0.0.1", "--port", str(self.port)),
            *("--base-directory", str(self.base), "--front-end-root", str(self.front_end)),
            *("--disable-api-nodes", "--database-url", "sqlite:///:memory:", "--dont-print-server"),
            *self.arguments,
        ]
        environment = os.environ | {"DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.base, env=environment)  # noqa: S603
        try:
            self._wait_until_ready()
            self._check_imports()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server process this object started; does nothing when it is not running."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _lay_out(self) -> None:
        nodes = self.base / "custom_nodes"
        for folder in (nodes, self.input, self.output, self.models / "allosr2"):
            folder.mkdir(parents=True, exist_ok=True)
        if self.pack is not None:
            link = nodes / PACK_NAME
            if link.is_symlink():
                link.unlink()
            link.symlink_to(self.pack.resolve(), target_is_directory=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise ServerError(f"ComfyUI ended while starting; its log:\n{self.log_tail()}")
            try:
                self.get("/system_stats")
                return
            except (ServerError, OSError):
                time.sleep(0.2)
        raise ServerError(f"ComfyUI did not answer within {self.start_timeout:.0f} s; its log:\n{self.log_tail()}")

    def _check_imports(self) -> None:
        failed = [line for line in self.log().splitlines() if "IMPORT FAILED" in line]
        failed = [line for line in failed if not line.rstrip().endswith(TOLERATED_IMPORT_FAILURES)]
        if failed:
            raise ServerError("\n".join(["ComfyUI could not import:", *failed, self.log_tail()]))

    # --- looking at it ------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process.pid

    def log(self) -> str:
        """Everything the server printed so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of the log."""
        return "\n".join(self.log().splitlines()[-lines:])

    def peak_memory(self) -> int:
        """Largest resident size of the server process so far, bytes (where no peak is kept: the size now)."""
        status = Path(f"/proc/{self.pid}/status")
        if status.exists():
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        import psutil  # in the host's requirements

        return int(psutil.Process(self.pid).memory_info().rss)

    # --- talking to it ------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: JSON | None = None) -> tuple[int, bytes]:
        """One HTTP request; returns (status, body) for 4xx too. OSError when nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - always http://127.0.0.1
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except http.client.HTTPException as error:
            raise ServerError(f"{method} {path}: {error!r}") from error

    def get(self, path: str) -> Any:  # noqa: ANN401 - parsed JSON
        """GET a JSON document; ServerError unless the status is 200."""
        status, body = self.request("GET", path)
        if status != 200:
            raise ServerError(f"GET {path}: expected status 200, got {status}: {body[:300]!r}")
        return json.loads(body)

    def object_info(self, node_id: str) -> JSON:
        """The schema of one node as the front end receives it; KeyError when the server has no such node."""
        return self.get(f"/object_info/{quote(node_id)}")[node_id]

    def interrupt(self) -> None:
        """Cancel what is running."""
        self.request("POST", "/interrupt", {})

    def forget(self) -> None:
        """Drop the results kept from earlier runs, so that an equal workflow is worked through again."""
        self.request("POST", "/free", {"free_memory": True, "unload_models": True})

    def queue(self, workflow: JSON) -> str:
        """Queue an API-format workflow and return its id; WorkflowError when validation refuses it."""
        status, body = self.request("POST", "/prompt", {"prompt": workflow})
        answer = json.loads(body) if body else {}
        if status != 200 or answer.get("node_errors"):
            raise WorkflowError(f"the server refused the workflow (status {status}): {_refusal(answer)}")
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 600.0) -> WorkflowResult:
        """Wait until a queued workflow is over. WorkflowError: it failed; ServerError: time-out, dead server."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise ServerError(f"ComfyUI ended while it worked; its log:\n{self.log_tail()}")
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)  # absent until the run is really over
            if entry is not None:
                return self._result(prompt_id, entry)
            time.sleep(0.1)
        raise ServerError(f"workflow {prompt_id} did not end within {timeout:.0f} s; the log:\n{self.log_tail()}")

    def run(self, workflow: JSON, timeout: float = 600.0) -> WorkflowResult:
        """`queue` and `wait`."""
        return self.wait(self.queue(workflow), timeout)

    def _result(self, prompt_id: str, entry: JSON) -> WorkflowResult:
        status = entry.get("status") or {}
        if status.get("status_str") != "success":
            for kind, message in status.get("messages", ()):
                if kind == "execution_error":
                    raise WorkflowError(
                        f"{message['node_type']}: {message['exception_type']}: {message['exception_message'].strip()}",
                        node_type=message["node_type"],
                        exception_type=message["exception_type"],
                    )
                if kind == "execution_interrupted":
                    node = message["node_type"]
                    raise WorkflowError(f"interrupted in {node}", node_type=node, interrupted=True)
            raise WorkflowError(f"the workflow ended with status {status}")
        outputs = entry.get("outputs", {})
        shown = [image for node in outputs.values() for image in node.get("images", ()) if image["type"] == "output"]
        files = (self.base / image["type"] / image["subfolder"] / image["filename"] for image in shown)
        return WorkflowResult(prompt_id=prompt_id, outputs=outputs, images=tuple(files))


def _refusal(answer: JSON) -> str:
    parts = []
    if answer.get("error"):
        parts.append(f"{answer['error'].get('message')} {answer['error'].get('details', '')}".strip())
    for node in (answer.get("node_errors") or {}).values():
        for error in node.get("errors", ()):
            parts.append(f"{node.get('class_type')}: {error.get('message')}: {error.get('details')}")
    return "; ".join(parts) or json.dumps(answer)[:500]
