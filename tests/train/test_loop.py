"""The training loop on a problem of sixteen numbers: resuming, diverging, what is written."""

import dataclasses
import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from allosr2_core.errors import AlloSR2Error
from tests.support.equality import assert_equal
from tests.support.tiny_training import tiny_table
from tests.support.toy_stage import Toy, in_folder, state_of
from train.config import Config
from train.config_file import from_table
from train.config_stages import OptimConfig
from train.loop.interrupts import Stopped
from train.loop.loop import run_stage
from train.loop.run import init_from, lr_factor
from train.loop.state import Averages, save_state


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return in_folder(tmp_path)


def test_five_steps_and_five_more_are_ten(tmp_path: Path) -> None:
    """Weights, averages and optimiser, to the bit; the second half sees the samples the first has not seen."""
    whole, parts = in_folder(tmp_path / "whole"), in_folder(tmp_path / "parts")
    straight, first, second = Toy(whole), Toy(parts), Toy(parts)
    assert run_stage(straight, whole) == 10
    assert run_stage(first, parts, max_steps=5) == 5
    assert state_of(parts)["step"] == 5
    assert run_stage(second, parts, max_steps=5) == 10
    assert_equal(state_of(parts), state_of(whole))
    assert_equal(first.seen + second.seen, straight.seen)
    assert first.seeds + second.seeds == straight.seeds
    assert len(set(straight.seeds)) == 10  # other noise at every step
    assert_equal(
        load_file(Path(parts.run.dir) / "toy" / "map.safetensors"),
        load_file(Path(whole.run.dir) / "toy" / "map.safetensors"),
    )
    trained, initial = straight.trained.state_dict(), Toy(whole).trained.state_dict()
    assert all(not torch.equal(trained[name], initial[name]) for name in trained)


def test_a_finished_run_does_nothing_more(config: Config) -> None:
    run_stage(Toy(config), config)
    before = state_of(config)
    again = Toy(config)
    assert run_stage(again, config) == 10
    assert again.seen == []
    assert_equal(state_of(config), before)


def test_a_termination_saves_and_the_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, cut = in_folder(tmp_path / "whole"), in_folder(tmp_path / "cut")
    run_stage(Toy(whole), whole)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="toy: stopped at step 3, saved") as stopped:  # the step at hand is finished
        run_stage(Toy(cut, kill_at=2), cut)
    assert stopped.value.status == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert state_of(cut)["step"] == 3
    assert run_stage(Toy(cut), cut) == 10
    assert_equal(state_of(cut), state_of(whole))


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_state(config: Config) -> None:
    run_stage(Toy(config), config, max_steps=2)
    before = state_of(config)
    with pytest.raises(AlloSR2Error, match=r"toy: loss nan, gradient norm nan at step 4: .*'fit': nan"):
        run_stage(Toy(config, nan_at=4), config)
    assert_equal(state_of(config), before)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_previews_can_be_left_out(tmp_path: Path) -> None:
    """A run without them ends with the same state, to the bit."""
    plain, silent = in_folder(tmp_path / "plain"), in_folder(tmp_path / "silent")
    silent = dataclasses.replace(silent, run=dataclasses.replace(silent.run, preview_every=0))
    run_stage(Toy(plain), plain)
    assert run_stage(Toy(silent), silent) == 10
    folder = Path(silent.run.dir) / "toy"
    assert not list((folder / "previews").iterdir())
    assert "val_" not in (folder / "log.jsonl").read_text()
    assert_equal(state_of(silent), state_of(plain))


def test_what_a_run_leaves_behind(config: Config) -> None:
    stage = Toy(config)
    run_stage(stage, config)
    folder = Path(config.run.dir) / "toy"
    assert sorted(p.name for p in folder.iterdir()) == [
        ".lock",
        "log.jsonl",
        "map.safetensors",
        "offset.safetensors",
        "previews",
        "state.pt",
    ]
    state = state_of(config)
    for name, module in stage.trained.items():
        exported = load_file(folder / f"{name}.safetensors")
        module.load_state_dict(exported)  # strict
        for key, value in exported.items():
            assert torch.equal(value, state["averaged"][f"{name}.{key}"])
            assert not torch.equal(value, state["trained"][f"{name}.{key}"])
    assert sorted(p.name for p in (folder / "previews").iterdir()) == ["000000.png", "000010.png"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, *range(1, 11), 10]
    assert lines[1].keys() == {
        "step",
        "total",
        "fit",
        "unweighted",
        "grad_norm",
        "steps_per_s",
        "images_per_s",
        "seconds",
    }
    assert lines[1]["total"] == lines[1]["fit"]
    assert lines[0].keys() == lines[-1].keys() == {"step", "val_norm"}


def test_every_module_learns_at_its_own_rate(config: Config) -> None:
    """Adam's first step has the size of the learning rate (warm-up is over at once here)."""
    stage = Toy(config)
    before = {name: value.clone() for name, value in stage.trained.state_dict().items()}
    run_stage(stage, config, max_steps=1)
    for name, value in stage.trained.state_dict().items():
        rate = 1e-3 if name.startswith("map") else 0.5e-3
        torch.testing.assert_close((value - before[name]).abs(), torch.full_like(value, rate), atol=2e-6, rtol=1e-3)


def test_a_batch_in_passes_is_the_same_batch(tmp_path: Path) -> None:
    """Micro batches see the samples, the noise and the mean loss of the whole batch."""
    tables = {name: tiny_table(tmp_path / name, 6) for name in ("whole", "passes")}
    for table in tables.values():
        table["stages"]["prior"]["optim"]["batch"] = 6
    tables["passes"]["stages"]["prior"]["optim"]["micro"] = 2
    whole, passes = (from_table(Config, table, "x") for table in tables.values())
    one, many = Toy(whole), Toy(passes)
    run_stage(one, whole)
    run_stage(many, passes)
    assert len(many.seen) == 3 * len(one.seen)
    assert torch.equal(torch.cat(many.seen), torch.cat(one.seen))
    for name, value in one.trained.state_dict().items():
        torch.testing.assert_close(many.trained.state_dict()[name], value, atol=1e-6, rtol=1e-5)
    logs = [(Path(config.run.dir) / "toy" / "log.jsonl").read_text().splitlines() for config in (whole, passes)]
    for a, b in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert a.get("fit", 0.0) == pytest.approx(b.get("fit", 0.0), rel=1e-5)
    tables["passes"]["stages"]["prior"]["optim"]["micro"] = 4
    odd = from_table(Config, tables["passes"], "x")
    with pytest.raises(AlloSR2Error, match="toy: expected a micro batch that divides a share of 6; got 4"):
        run_stage(Toy(odd), odd)


def test_a_run_may_start_from_the_averages_of_another(tmp_path: Path) -> None:
    first, second = in_folder(tmp_path / "first"), in_folder(tmp_path / "second")
    run_stage(Toy(first), first)
    folder = Path(first.run.dir) / "toy"
    (folder / "offset.safetensors").unlink()
    stage, fresh = Toy(second), Toy(second)
    init_from(stage, folder)
    for key, value in load_file(folder / "map.safetensors").items():
        assert torch.equal(stage.trained["map"].state_dict()[key], value)
    assert torch.equal(stage.trained["offset"].weight, fresh.trained["offset"].weight)
    assert run_stage(stage, second, max_steps=1) == 1
    assert state_of(second)["optimizer"]["state"][0]["step"] == 1
    with pytest.raises(AlloSR2Error, match=r"map.safetensors, offset.safetensors in .*; there is none"):
        init_from(stage, tmp_path)


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    optim = OptimConfig(
        optimizer="adamw", steps=100, batch=1, micro=0, lr=1.0, warmup=10, decay=20, ema=0.9, grad_clip=1.0
    )
    assert lr_factor(0, optim) == pytest.approx(0.1)
    assert lr_factor(9, optim) == lr_factor(50, optim) == lr_factor(80, optim) == 1.0
    assert lr_factor(90, optim) == pytest.approx(0.5)
    assert lr_factor(99, optim) == pytest.approx(0.05)
    bare = OptimConfig(optimizer="adamw", steps=5, batch=1, micro=0, lr=1.0, warmup=0, decay=0, ema=0.9, grad_clip=1.0)
    assert [lr_factor(step, bare) for step in range(5)] == [1.0] * 5


def test_averages_forget_the_beginning_quickly_and_the_rest_slowly() -> None:
    module = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "frozen": nn.Linear(1, 1).requires_grad_(False)})
    weight = module["a"].weight
    nn.init.zeros_(weight)
    averages = Averages(module, decay=0.9)
    nn.init.ones_(weight)
    averages.update(step=0)
    assert averages.state_dict().keys() == {"a.weight"}
    assert float(averages.state_dict()["a.weight"]) == pytest.approx(1 - 1 / 10)
    averages.update(step=10_000)
    assert float(averages.state_dict()["a.weight"]) == pytest.approx(1 - 0.1 * 0.9)
    with averages.in_place():
        assert float(weight.detach()) == pytest.approx(1 - 0.1 * 0.9)
    assert float(weight.detach()) == 1.0
    assert float(averages.state_dict()["a.weight"]) == pytest.approx(1 - 0.1 * 0.9)


def test_an_interrupted_write_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        save_state(path, {"step": lambda: None})
    assert torch.load(path, weights_only=True) == {"step": 1}
