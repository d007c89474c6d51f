"""Every stage, stopped half-way and resumed, is the run that was never stopped: to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_config, write_photos
from train.__main__ import main
from train.stages.registry import STAGES

STEPS = 10


def run(stage: str, config: Path, *options: str) -> int:
    return (
        run_autoencoder(config, *options)
        if stage == "autoencoder"
        else main([stage, "--config", str(config), *options])
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of all stages, one with a stop after half the steps of each."""
    root = tmp_path_factory.mktemp("resume")
    write_photos(root, "train", [(100, 140), (128, 96)])
    write_photos(root, "val", [(80, 70)])
    whole, parts = (write_config(root, name, STEPS) for name in ("whole", "parts"))
    for stage in STAGES:
        assert run(stage, whole) == 0
        assert run(stage, parts, "--max-steps", str(STEPS // 2)) == 0
        assert run(stage, parts, "--resume", "latest") == 0
    return root


def tensors_of(value: Any, where: str = "") -> dict[str, Tensor]:
    """All tensors and numbers of a nested state, flat."""
    if isinstance(value, Tensor):
        return {where: value}
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in tensors_of(part, f"{where}.{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, part in enumerate(value) for k, v in tensors_of(part, f"{where}.{i}").items()}
    return {where: torch.tensor(float(value))} if isinstance(value, (int, float)) else {}


@pytest.mark.parametrize("stage", STAGES)
def test_five_steps_and_five_more_are_ten(runs: Path, stage: str) -> None:
    """Parameters, optimiser moments, averages, learning rates and the step; data and noise follow from the step."""
    whole, parts = (torch.load(runs / name / stage / "state.pt", weights_only=True) for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == STEPS
    for state in (whole, parts):
        del state["seconds"]
    one, two = tensors_of(whole), tensors_of(parts)
    assert one.keys() == two.keys()
    assert any(".optimizer.state" in name for name in one) and any(".averaged." in name for name in one)
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert not different


def test_a_run_goes_on_from_the_state_of_another(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume PATH takes the other run's optimiser and step along, and never writes over a run that was started."""
    for stage, name in (("autoencoder", "autoencoder"), ("prior", "velocity")):
        (runs / "third" / stage).mkdir(parents=True)
        target = runs / "third" / stage / f"{name}.safetensors"
        target.write_bytes((runs / "whole" / stage / f"{name}.safetensors").read_bytes())
    table = tiny_table(runs, steps=STEPS + 2)
    table["run"]["dir"] = str(runs / "third")
    config = tmp_path / "third.toml"
    config.write_text(to_toml(table), encoding="utf-8")
    assert run("sr", config, "--resume", str(runs / "whole" / "sr")) == 0
    state = torch.load(runs / "third" / "sr" / "state.pt", weights_only=True)
    assert state["step"] == STEPS + 2
    assert state["optimizer"]["state"][0]["step"] == STEPS + 2
    assert run("sr", config, "--resume", str(runs / "whole" / "sr" / "state.pt")) == 1
    assert "would be overwritten: move it away, or --resume latest" in capsys.readouterr().err
    assert run("sr", config, "--init-from", str(runs / "whole" / "sr")) == 1
    assert "would be overwritten" in capsys.readouterr().err
    assert run("prior", config, "--resume", str(tmp_path)) == 1
    assert f"expected a resumable state at {tmp_path / 'state.pt'}; there is none" in capsys.readouterr().err


def test_settings_that_changed_are_named(runs: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    table = tiny_table(runs, steps=STEPS)
    table["run"] |= {"dir": str(runs / "whole"), "seed": 9}
    table["stages"]["prior"]["t_logit_mean"] = -1.0
    config = tmp_path / "changed.toml"
    config.write_text(to_toml(table), encoding="utf-8")
    assert run("prior", config) == 0
    assert "prior: seed is '9' now and was '3'" in caplog.text
    assert "prior: stages.prior.t_logit_mean is '-1.0' now and was '0.0'" in caplog.text
