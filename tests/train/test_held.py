"""Parts of the SR stage whose learning rate is 0: not differentiated, to the same losses, and kept in every file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.equality import assert_equal
from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_photos
from train.__main__ import main
from train.config import Config
from train.config_file import from_table, load_config
from train.loop.rng import BatchRandom
from train.stages.sr import SRStage

HELD = ("encoder", "snr_head")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs and the first two stages."""
    root = tmp_path_factory.mktemp("held")
    write_photos(root, "train", [(100, 140), (128, 96)])
    write_photos(root, "val", [(80, 70)])
    config = config_file(root, "first")
    assert run_autoencoder(config) == main(["prior", "--config", str(config)]) == 0
    return root


def config_file(root: Path, name: str, steps: int = 4, rate: float = 0.0, **optim: Any) -> Path:
    """A configuration whose encoder and head learn at `rate`, in a run that shares the first two stages."""
    table = tiny_table(root, steps)
    table["run"] |= {"dir": str(root / name), "preview_every": 0}
    table["stages"]["sr"] |= {"encoder_lr": rate, "head_lr": rate}
    table["stages"]["sr"]["optim"] |= optim
    (root / name).mkdir(exist_ok=True)
    for stage in ("autoencoder", "prior"):
        if name != "first" and not (root / name / stage).exists():
            (root / name / stage).symlink_to(root / "first" / stage)
    path = root / f"{name}.toml"
    path.write_text(to_toml(table), encoding="utf-8")
    return path


def state(root: Path, name: str) -> dict[str, Any]:
    return torch.load(root / name / "sr" / "state.pt", weights_only=True)


def differentiated(stage: SRStage, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    """The terms of a step, after a backward pass through what has a weight."""
    terms = stage(batch, step, BatchRandom.seeded(step))
    torch.stack([stage.weights[name] * term for name, term in terms.items() if name in stage.weights]).sum().backward()
    return {name: term.detach() for name, term in terms.items()}


@pytest.mark.parametrize("step", [0, 1])
def test_a_held_part_gets_no_gradient_and_the_others_the_same_to_the_bit(root: Path, step: int) -> None:
    config = load_config(config_file(root, "bits"))
    held, whole = SRStage(config), SRStage(config)
    for name in HELD:
        assert not any(parameter.requires_grad for parameter in held.trained[name].parameters())
        whole.trained[name].requires_grad_(True)  # as if its rate were not 0
    items = [held.dataset(0)[i] for i in range(4)]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    assert not held.encode_lr(batch["lr"]).requires_grad  # no graph
    assert whole.encode_lr(batch["lr"]).requires_grad
    assert_equal(differentiated(held, batch, step), differentiated(whole, batch, step))
    for name, parameter in held.trained.named_parameters():
        if name.startswith(HELD):
            assert parameter.grad is None
    learning = {"velocity", "decoder"}
    gradients = [
        {name: p.grad for name, p in stage.trained.named_parameters() if name.split(".")[0] in learning}
        for stage in (held, whole)
    ]
    assert len(gradients[0]) > 10
    assert_equal(*gradients)


def test_a_run_keeps_held_parts_as_they_are_in_every_file(root: Path) -> None:
    learning, holding = (config_file(root, name, rate=rate) for name, rate in (("learning", 0.5), ("holding", 0.0)))
    assert main(["sr", "--config", str(learning)]) == main(["sr", "--config", str(holding)]) == 0
    ours, theirs = state(root, "holding"), state(root, "learning")
    for part in ("trained", "averaged"):
        assert ours[part].keys() == theirs[part].keys()
    start = SRStage(load_config(config_file(root, "bits")))
    for name in HELD:
        as_it_was = dict(start.trained[name].state_dict())
        assert_equal(load_file(root / "holding" / "sr" / f"{name}.safetensors"), as_it_was)
        for key, value in as_it_was.items():
            assert torch.equal(ours["trained"][f"{name}.{key}"], value)
            assert torch.equal(ours["averaged"][f"{name}.{key}"], value)
    assert len(ours["optimizer"]["param_groups"]) == len(theirs["optimizer"]["param_groups"]) == 4
    out = root / "held.safetensors"
    assert main(["snr_head", "--config", str(holding)]) == 0
    assert main(["export", "--config", str(holding), "--out", str(out), "--pairs", "2"]) == 0


@pytest.mark.parametrize(("first", "then"), [(0.5, 0.0), (0.0, 0.5)])
def test_a_run_goes_on_when_a_part_is_held_from_then_on_or_no_more(root: Path, first: float, then: float) -> None:
    name = f"turn-{first}"
    before = config_file(root, name, steps=4, rate=first)
    assert main(["sr", "--config", str(before), "--max-steps", "2"]) == 0
    half = state(root, name)
    assert main(["sr", "--config", str(config_file(root, name, steps=4, rate=then))]) == 0
    whole = state(root, name)
    assert whole["step"] == 4
    same = [
        torch.equal(half["trained"][key], value)
        for key, value in whole["trained"].items()
        if key.startswith("encoder.") and value.is_floating_point()
    ]
    assert all(same) if then == 0.0 else not all(same)


def test_the_gradient_of_a_held_part_does_not_count_towards_the_largest_norm(root: Path) -> None:
    """What differs from a part that learns at rate 0: clipping looks at the gradients that are used."""
    config = load_config(config_file(root, "norm"))
    stage = SRStage(config)
    items = [stage.dataset(0)[i] for i in range(4)]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    differentiated(stage, batch, 0)
    norm = float(torch.nn.utils.clip_grad_norm_(stage.trained.parameters(), 1e9))
    used = [p.grad for p in stage.trained.parameters() if p.grad is not None]
    assert norm == pytest.approx(float(torch.stack([g.square().sum() for g in used]).sum().sqrt()), rel=1e-5)
    assert norm > 0


def test_a_part_with_branches_is_held_too(root: Path) -> None:
    """Of a low-rank adapter the branches are held; they are what is saved, not the base they sit on."""
    table = tiny_table(root, 1)
    table["run"]["dir"] = str(root / "first")
    table["adapter"] |= {"rank": 2, "alpha": 2.0, "transformer": [".*conv1"], "encoder": [".*conv.*"]}
    names = []
    for rate in (0.5, 0.0):
        table["stages"]["sr"] |= {"encoder_lr": rate, "decoder_lr": 0.0}
        table["stages"]["sr"]["weights"]["decode"] = 0.0
        stage = SRStage(from_table(Config, table, "x"))
        groups = stage.parameter_groups()
        names.append((sorted(stage.averages.state_dict()), [len(group["params"]) for group in groups]))
    assert names[0] == names[1]
    assert any("encoder" in name and "lora" in name for name in names[0][0])
