"""`python -m train deepen`, on the embedded checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from allosr2_core.checkpoint import Checkpoint, embedded_path, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.unet import VelocityUNet
from train.deepen import deepened, main


@pytest.fixture(scope="module")
def shallow() -> Checkpoint:
    return load_checkpoint(embedded_path())


def test_a_deeper_network_computes_the_same_and_can_learn(shallow: Checkpoint, tmp_path: Path) -> None:
    before = tuple(shallow.config.network["blocks"])
    after = (before[0] + 1, before[1], before[2] + 2)
    out = tmp_path / "deeper.safetensors"
    assert main(["--blocks", ",".join(map(str, after)), "--out", str(out)]) == 0
    deeper = load_checkpoint(out)  # through fp16, which zeros survive
    assert deeper.config.network["blocks"] == list(after)
    assert deeper.training["deepened"] == {"from": list(before), "to": list(after)}
    assert {**deeper.training, "deepened": None} == {**shallow.training, "deepened": None}
    z, rng = torch.empty(2, 16, 20, 24), torch.Generator().manual_seed(0)
    z.normal_(generator=rng)
    for t in (torch.tensor([0.3, 0.6]), torch.tensor([-0.3, 0.05])):
        for part in ("build_prior", "build_network"):
            old, new = getattr(shallow, part)(), getattr(deeper, part)()
            assert torch.equal(old(z, t), new(z, t)), part
    network = deeper.build_network().requires_grad_(True)
    assert isinstance(network, VelocityUNet)
    network(z, torch.tensor([0.3, 0.6])).square().mean().backward()
    added = network.down[2][-1].conv2.weight
    assert not added.any()
    assert added.grad is not None
    assert added.grad.abs().max() > 0
    # what stands between the prior and the SR flow is what was learned, nothing that the deepening made up
    assert not any(
        value.any() for name, value in deeper.tensors.items() if f".down.0.{before[0]}." in name and ".diff" in name
    )


def test_what_cannot_be_deepened_is_refused(shallow: Checkpoint) -> None:
    with pytest.raises(AlloSR2Error, match=r"3 levels of at least .* blocks; got \(9, 9\)"):
        deepened(shallow, (9, 9))
    with pytest.raises(AlloSR2Error, match=r"got \(9, 9, 1\)"):
        deepened(shallow, (9, 9, 1))
    adapter = Checkpoint(dataclasses.replace(shallow.config, adapter={"transformer": ["x"], "vae_encoder": []}), {}, {})
    with pytest.raises(AlloSR2Error, match="an adapter"):
        deepened(adapter, (9, 9, 9))
