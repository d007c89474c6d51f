"""Run inside ComfyUI's own modules, without a server: what the pack costs before and at the first picture.

    python start_worker.py COMFYUI_ROOT PACK SIDE

Prints one JSON object of seconds: `host` (importing ComfyUI's modules), `pack` (ComfyUI's own loading of the pack, its
schemas included), `load` (the loader node on the embedded checkpoint), `pictures` (upscale and decode nodes on a
picture of SIDE px, twice).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any


class Clock:
    """Seconds since it was last asked."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        before, self.last = self.last, time.perf_counter()
        return self.last - before


def main(root: str, pack: str, side: int) -> dict[str, Any]:
    """All of it, in the order a user meets it."""
    sys.path[0] = str(Path(pack) / "tools")  # instead of this file's folder
    clock = Clock()
    import torch
    from launch_comfyui import host_modules

    host_modules(root, cpu=True)
    import comfy_config.config_parser  # noqa: F401 - the host's reader of pyproject.toml

    import nodes  # the host's: `root` comes first

    seconds: dict[str, Any] = {"host": clock.lap()}
    if not asyncio.run(nodes.load_custom_node(pack)):
        sys.exit("ComfyUI could not load the pack; its log says why")
    seconds["pack"] = clock.lap()

    loader, upscale, decode = (
        nodes.NODE_CLASS_MAPPINGS[name] for name in ("AlloSR2Loader", "AlloSR2OneStepUpscale", "TiledDecode")
    )
    picture = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        clock.lap()
        model, vae, allosr2, _ = loader.execute(**defaults(loader)).result
        seconds["load"] = clock.lap()
        seconds["pictures"] = []
        for _ in range(2):
            sockets = {"model": model, "vae": vae, "allosr2": allosr2, "image": picture}
            (latent,) = upscale.execute(**sockets, **defaults(upscale)).result
            decode.execute(latent=latent, vae=vae, **defaults(decode))
            seconds["pictures"].append(clock.lap())
    return seconds


def defaults(node: Any) -> dict[str, Any]:
    """What a node's widgets show when it is put into a workflow."""
    values = {socket.id: getattr(socket, "default", None) for socket in node.GET_SCHEMA().inputs}
    return {name: value for name, value in values.items() if value is not None}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))) + "\n")
