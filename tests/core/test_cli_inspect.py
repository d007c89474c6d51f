"""`python -m allosr2_core inspect`, and the bad checkpoints that it and `upscale` refuse."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from allosr2_core.checkpoint.format import load_checkpoint
from tests.support.command_line import CommandLine
from tests.support.pictures import write_photo


def test_inspect(run: CommandLine, tiny_checkpoint: Path) -> None:
    outcome = run("inspect", tiny_checkpoint)
    assert (outcome.code, outcome.err) == (0, "")
    for text in ("t_star: 0.22", "init: aligned", "steps: 12", "license: Apache-2.0", "allosr2.format: 1", "F16"):
        assert text in outcome.out
    for group in ("flow.*", "vae.*", "lora.transformer.*", "lora.vae_encoder.*", "snr_head.*"):
        assert group in outcome.out
    total = sum(tensor.numel() for tensor in load_checkpoint(tiny_checkpoint).tensors.values())
    assert f"{total:,} values" in outcome.out


def damaged_checkpoint(path: Path, good: Path, kind: str) -> Path:
    whole, tensors = good.read_bytes(), load_file(good)
    with safe_open(good, framework="pt") as file:
        metadata = file.metadata()
    if kind == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif kind == "newer":
        save_file(tensors, path, metadata=metadata | {"allosr2.format": "99"})
    elif kind == "nan":
        first = next(iter(tensors))
        save_file(tensors | {first: tensors[first] * float("nan")}, path, metadata=metadata)
    elif kind == "incomplete":
        tensors.pop(next(iter(tensors)))
        save_file(tensors, path, metadata=metadata)
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"hello" * 50, "truncated": whole[: len(whole) // 2]}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "there is none"),
        ("empty", "empty"),
        ("text", "expected a complete safetensors file"),
        ("truncated", "expected a complete safetensors file"),
        ("foreign", "expected an AlloSR2 checkpoint"),
        ("newer", "expected allosr2.format 1; got '99'"),
        ("nan", "finite"),
        ("incomplete", "missing"),
    ],
)
def test_bad_checkpoints_are_refused_with_the_reason(
    run: CommandLine, tmp_path: Path, tiny_checkpoint: Path, kind: str, reason: str
) -> None:
    path = damaged_checkpoint(tmp_path / "bad.safetensors", tiny_checkpoint, kind)
    inspected = run("inspect", path)
    assert inspected.code == 1
    assert "bad.safetensors: " in inspected.err
    assert reason in inspected.err
    outcome = run("upscale", write_photo(tmp_path / "in.png"), tmp_path / "out.png", "--checkpoint", path)
    assert outcome.code == 2
    assert reason in outcome.err
    assert not (tmp_path / "out.png").exists()
