"""What a server tells the front end while it works through a workflow."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from comfy_server import ComfyServer
from workflows import Workflow

TEXT, PREVIEW = 3, 4
"""Kinds of the host's binary messages."""
OVER = {"execution_success", "execution_error", "execution_interrupted"}


@dataclass
class Events:
    """The messages of one run."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Type and data of those that are JSON."""
    texts: list[tuple[str, str]] = field(default_factory=list)
    """Texts to be shown on nodes: node id and text."""
    previews: list[tuple[str, bytes]] = field(default_factory=list)
    """Pictures to be shown on nodes: node id and file."""

    @property
    def ran(self) -> list[str]:
        """Ids of the nodes that worked; of a node inside another one it starts with that one's."""
        nodes = (data["node"] for kind, data in self.messages if kind == "executing")
        return [node for node in nodes if node is not None]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for found, data in self.messages if found == kind]


def watch(
    server: ComfyServer, workflow: Workflow, timeout: float = 120.0, *, cancel_after: int | None = None
) -> Events:
    """Run a workflow as a front end does, and keep what it is told.

    cancel_after: how far a node's progress bar is when the run is cancelled.
    """
    return asyncio.run(asyncio.wait_for(_watch(server, workflow, cancel_after), timeout))


async def _watch(server: ComfyServer, workflow: Workflow, cancel_after: int | None) -> Events:
    events, client = Events(), uuid.uuid4().hex
    address = f"{server.url}/ws?clientId={client}"
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        async with session.post(f"{server.url}/prompt", json={"prompt": workflow, "client_id": client}) as answer:
            assert answer.status == 200, await answer.text()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                _keep(events, message.data)
                continue
            content = json.loads(message.data)
            events.messages.append((content["type"], content["data"]))
            if cancel_after is not None and content["type"] == "progress" and content["data"]["value"] >= cancel_after:
                cancel_after = None
                async with session.post(f"{server.url}/interrupt", json={}) as answer:
                    assert answer.status == 200, await answer.text()
            if content["type"] in OVER:
                return events
    raise AssertionError("the server ended the connection")


def _keep(events: Events, data: bytes) -> None:
    (kind,) = struct.unpack_from(">I", data)
    (length,) = struct.unpack_from(">I", data, 4)
    head, body = data[8 : 8 + length], data[8 + length :]
    if kind == TEXT:
        events.texts.append((head.decode(), body.decode()))
    elif kind == PREVIEW:
        events.previews.append((json.loads(head)["display_node_id"], body))
