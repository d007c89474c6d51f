"""What the parity tests share: the line to the process with other implementations, and random networks."""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Peers:
    """ComfyUI and diffusers in a process of their own; `ask` sends a job of peer_worker.py and returns the answer."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.asked = 0

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ready(self) -> None:
        assert self._line() == "ready", (self.folder / "peers.log").read_text()[-4000:]

    def ask(self, job: str, **content: Any) -> dict[str, Any]:
        self.asked += 1
        source, target = self.folder / f"job{self.asked}.pt", self.folder / f"answer{self.asked}.pt"
        torch.save({"job": job, **content}, source)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([str(source), str(target)]) + "\n")
        self.process.stdin.flush()
        answer = self._line()
        assert answer == "ok", answer
        return torch.load(target, weights_only=True)

    def log(self) -> str:
        return (self.folder / "peers.log").read_text()


def randomize(network: nn.Module, seed: int) -> nn.Module:
    """Random weights under which every part of a network matters: gains around one, all else of its usual size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                is_gain = name.endswith("scale") or ("norm" in name and name.endswith("weight"))
                parameter.copy_(0.2 * noise + float(is_gain))
            else:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
    return network.eval().requires_grad_(False)
