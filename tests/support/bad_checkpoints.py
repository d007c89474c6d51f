"""Checkpoints that must be refused, one file for each reason."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

BAD_CHECKPOINTS = {
    "empty.safetensors": "empty",
    "truncated.safetensors": "complete safetensors file",
    "foreign.safetensors": "expected an AlloSR2 checkpoint",
    "text.safetensors": "complete safetensors file",
    "newer.safetensors": "expected allosr2.format 1",
    "nan.safetensors": "expected finite weights",
    "missing.safetensors": "tensors missing: flow.conv_in.weight",
    "extra.safetensors": "not expected: flow.surprise",
    "shape.safetensors": "expected shape",
}
"""File name -> what the error must say."""


def write_bad_checkpoints(folder: Path, good: Path) -> None:
    """Make every file of `BAD_CHECKPOINTS` from a good checkpoint."""
    with safe_open(good, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def write(name: str, changed: dict[str, torch.Tensor], **header: str) -> None:
        save_file(changed, folder / name, metadata=metadata | header)

    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "truncated.safetensors").write_bytes(good.read_bytes()[: good.stat().st_size * 2 // 3])
    (folder / "text.safetensors").write_text(json.dumps({"not": "tensors"}))
    save_file({"model.weight": torch.zeros(2, 2)}, folder / "foreign.safetensors")
    write("newer.safetensors", tensors, **{"allosr2.format": "2"})
    weight = tensors["flow.conv_in.weight"]
    write("nan.safetensors", tensors | {"flow.conv_in.weight": torch.full_like(weight, float("nan"))})
    write("missing.safetensors", {k: v for k, v in tensors.items() if k != "flow.conv_in.weight"})
    write("extra.safetensors", tensors | {"flow.surprise": torch.zeros(1)})
    write("shape.safetensors", tensors | {"flow.conv_in.weight": weight[:, :1].contiguous()})
