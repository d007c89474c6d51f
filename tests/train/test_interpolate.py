"""`python -m train interpolate`, on the embedded checkpoint and a changed copy of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from allosr2_core.checkpoint.format import FLOW, LORA_FLOW, Checkpoint, embedded_path, load_checkpoint, write_checkpoint
from allosr2_core.errors import AlloSR2Error
from train.checkpoints.interpolate import main, mix


@pytest.fixture(scope="module")
def first() -> Checkpoint:
    return load_checkpoint(embedded_path())


def moved(one: Checkpoint, prefix: str) -> Checkpoint:
    """The same with the tensors behind a prefix half as large."""
    tensors = {name: 0.5 * value if name.startswith(prefix) else value for name, value in one.tensors.items()}
    return Checkpoint(dataclasses.replace(one.config, t_star=0.3), {"run": 2}, tensors)


def test_what_was_learned_is_averaged_and_the_prior_stays(first: Checkpoint, tmp_path: Path) -> None:
    write_checkpoint(
        tmp_path / "second.safetensors",
        (second := moved(first, LORA_FLOW)).config,
        second.training,
        second.tensors,
        dtype=torch.float16,
        title="t",
        license="l",
    )
    out = tmp_path / "mixed.safetensors"
    assert (
        main([str(embedded_path()), str(tmp_path / "second.safetensors"), "--weight", "0.25", "--out", str(out)]) == 0
    )
    with safe_open(out, "pt") as file:
        assert file.metadata()["modelspec.title"] == "AlloSR2 mini and t"
        assert file.metadata()["license"] == "Apache-2.0 and l"
    mixed = load_checkpoint(out)
    for name, value in first.tensors.items():
        expected = 0.875 * value if name.startswith(LORA_FLOW) else value
        assert torch.allclose(mixed.tensors[name], expected, rtol=2e-3, atol=1e-6), name
    assert mixed.config.t_star == pytest.approx(0.75 * first.config.t_star + 0.25 * 0.3, abs=1e-4)
    assert [part["weight"] for part in mixed.training["mixed"]] == [0.75, 0.25]
    assert mixed.training["mixed"][1]["run"] == 2


def test_what_does_not_belong_together_is_refused(first: Checkpoint) -> None:
    with pytest.raises(AlloSR2Error, match="0 to 1; got 1.5"):
        mix(first, first, 1.5)
    with pytest.raises(AlloSR2Error, match="one prior and autoencoder; flow"):
        mix(first, moved(first, FLOW), 0.5)
    other = Checkpoint(dataclasses.replace(first.config, tile_size=64), {}, first.tensors)
    with pytest.raises(AlloSR2Error, match="they differ in tile_size"):
        mix(first, other, 0.5)
    smaller = Checkpoint(dataclasses.replace(first.config, trained_size=64), {}, first.tensors)
    assert mix(first, smaller, 0.9).config.trained_size == mix(smaller, first, 0.9).config.trained_size == 64
    adapter = Checkpoint(dataclasses.replace(first.config, adapter={"transformer": ["x"], "vae_encoder": []}), {}, {})
    with pytest.raises(AlloSR2Error, match="prior of their own; got an adapter"):
        mix(first, adapter, 0.5)
