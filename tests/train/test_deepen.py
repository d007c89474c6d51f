"""`python -m train deepen`, on the embedded checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from allosr2_core.checkpoint.format import LORA_FLOW, Checkpoint, embedded_path, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.unet import VelocityUNet
from train.checkpoints.deepen import deepened, main
from train.checkpoints.interpolate import mix


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
    assert deeper.training["deepened"] == [{"from": list(before), "to": list(after)}]
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
    learned = {
        name.removeprefix(LORA_FLOW): value for name, value in deeper.tensors.items() if name.startswith(LORA_FLOW)
    }
    made = [
        v
        for n, v in learned.items()
        if f".down.0.{before[0]}." in n or f".up.0.{before[0]}." in n or f".down.2.{before[2] + 1}." in n
    ]
    assert len(made) == 3 * 6
    assert not any(value.any() for value in made)


def test_relatives_deepened_alike_can_be_mixed_and_the_record_keeps_every_step(shallow: Checkpoint) -> None:
    one, two, three = shallow.config.network["blocks"]
    tensors = {name: 0.5 * value if name.startswith(LORA_FLOW) else value for name, value in shallow.tensors.items()}
    relative = Checkpoint(shallow.config, {}, tensors)
    mixed = mix(deepened(shallow, (one, two, three + 1)), deepened(relative, (one, two, three + 1)), 0.5)
    z, t = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([0.4])
    expected = mix(shallow, relative, 0.5).build_network()(z, t)
    torch.testing.assert_close(mixed.build_network()(z, t), expected, rtol=1e-4, atol=1e-5)
    twice = deepened(deepened(shallow, (one, two, three + 1)), (one + 1, two, three + 1))
    assert [step["to"] for step in twice.training["deepened"]] == [[one, two, three + 1], [one + 1, two, three + 1]]
    assert torch.equal(twice.build_network()(z, t), shallow.build_network()(z, t))


def test_what_cannot_be_deepened_is_refused(shallow: Checkpoint) -> None:
    with pytest.raises(AlloSR2Error, match=r"3 levels of at least .* blocks; got \(9, 9\)"):
        deepened(shallow, (9, 9))
    with pytest.raises(AlloSR2Error, match=r"got \(9, 9, 1\)"):
        deepened(shallow, (9, 9, 1))
    with pytest.raises(AlloSR2Error, match="there are; got as many"):
        deepened(shallow, tuple(shallow.config.network["blocks"]))
    adapter = Checkpoint(dataclasses.replace(shallow.config, adapter={"transformer": ["x"], "vae_encoder": []}), {}, {})
    with pytest.raises(AlloSR2Error, match="an adapter"):
        deepened(adapter, (9, 9, 9))
