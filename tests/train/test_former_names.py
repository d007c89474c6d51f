"""Commands, configurations and runs under the names of older versions: answered, and gone on with."""

import dataclasses
from pathlib import Path

import pytest
import torch

from allosr2_core.errors import AlloSR2Error
from tests.support.tiny_training import run_autoencoder, tiny_table, write_config, write_photos
from train import former_names
from train.__main__ import COMMANDS, main
from train.config import Config
from train.config_file import from_table, load_config
from train.stages.registry import STAGES

STEPS = 4


@pytest.mark.parametrize("old", former_names.COMMANDS)
def test_an_old_command_is_answered_with_the_new_one(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([old, "--config", "none.toml"]) == 2
    assert f"`{old}` is called `{former_names.COMMANDS[old]}`" in capsys.readouterr().err
    assert former_names.COMMANDS[old] in COMMANDS and old not in COMMANDS


@pytest.mark.parametrize("old", former_names.KEYS)
def test_an_old_key_is_answered_with_the_new_one(tmp_path: Path, old: str) -> None:
    table = tiny_table(tmp_path)
    *parents, last = old.split(".")
    inner = table
    for parent in parents:
        inner = inner[parent]
    inner[last] = 1
    with pytest.raises(AlloSR2Error, match=f"'{last}' is called {former_names.KEYS[old]}"):
        from_table(Config, table, "x.toml")


@pytest.mark.parametrize("old", former_names.GONE)
def test_a_key_that_is_gone_is_named(tmp_path: Path, old: str) -> None:
    table = tiny_table(tmp_path)
    table["stages"]["sr"][old.rpartition(".")[2]] = 0.0
    with pytest.raises(AlloSR2Error, match="is no setting; leave it out"):
        from_table(Config, table, "x.toml")


@pytest.mark.parametrize(("path", "value"), former_names.ADDED.items())
def test_a_key_that_older_files_lack_stands_for_what_was_done(tmp_path: Path, path: str, value: object) -> None:
    table = tiny_table(tmp_path)
    *parents, last = path.split(".")
    inner = table
    for parent in parents:
        inner = inner[parent]
    inner.pop(last, None)
    read = from_table(Config, table, "x.toml")
    for part in (*parents, last):
        read = getattr(read, part)
    assert read == value
    del table[parents[0]]
    with pytest.raises(AlloSR2Error, match=parents[0]):  # a table is not made up for a key
        from_table(Config, table, "x.toml")


def test_new_names_are_those_of_the_configuration(tmp_path: Path) -> None:
    """Every key that an old one is called must exist."""
    config = dataclasses.asdict(from_table(Config, tiny_table(tmp_path), "x.toml"))
    for new in former_names.KEYS.values():
        inner = config
        for part in new.split("."):
            assert part in inner, new
            inner = inner[part]


def as_before(run: Path) -> None:
    """Give a run the folders and the stored settings that older versions wrote."""
    for stage, old in former_names.STAGES.items():
        if (run / stage).exists():
            (run / stage).rename(run / old)
    for path in run.glob("*/state.pt"):
        state = torch.load(path, weights_only=True)
        old_settings = {}
        for key, value in state["settings"].items():
            for new, old in (
                ("stages.sr.weights.", "allosr2."),
                ("stages.sr.", "allosr2."),
                ("stages.snr_head.", "head."),
                ("stages.prior.", "prior."),
                ("stages.autoencoder.", "autoencoder."),
                ("autoencoder.", "codec."),
            ):
                if key.startswith(new):
                    key = old + key.removeprefix(new)
                    break
            old_settings[key.replace("allosr2.perceptual", "allosr2.trunks") if "(" in value else key] = value
        torch.save(state | {"settings": old_settings}, path)


def test_a_run_of_an_older_version_goes_on_in_its_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_photos(tmp_path, "train", [(100, 140)])
    write_photos(tmp_path, "val", [(80, 70)])
    whole, parts = (write_config(tmp_path, name, STEPS) for name in ("whole", "parts"))
    for config in (whole, parts):
        assert run_autoencoder(config) == 0 and main(["prior", "--config", str(config)]) == 0
    assert main(["sr", "--config", str(whole)]) == 0
    assert main(["sr", "--config", str(parts), "--max-steps", "2"]) == 0
    as_before(tmp_path / "parts")
    caplog.set_level("INFO")
    assert main(["sr", "--config", str(parts)]) == 0
    assert "resumed" in caplog.text and " now and was " not in caplog.text
    assert not (tmp_path / "parts" / "sr").exists()
    one, two = (
        torch.load(tmp_path / folder / "state.pt", weights_only=True)["averaged"]
        for folder in ("whole/sr", "parts/allosr2")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)

    assert main(["snr_head", "--config", str(parts)]) == 0  # finds the SR stage where it is
    as_before(tmp_path / "parts")
    assert main(["export", "--config", str(parts), "--out", str(tmp_path / "out.safetensors"), "--pairs", "2"]) == 0
    assert (tmp_path / "out.safetensors").exists()


def test_settings_that_changed_since_an_older_version_are_named(tmp_path: Path) -> None:
    stored = {"codec.type": "'patch'", "allosr2.grain": "1.0", "allosr2.perceptual": "8.0", "allosr2.trunks": "('a',)"}
    assert former_names.settings(stored) == {
        "autoencoder.type": "'patch'",
        "stages.sr.weights.grain": "1.0",
        "stages.sr.weights.perceptual": "8.0",
        "stages.sr.perceptual": "('a',)",
    }
    assert former_names.settings({"autoencoder.type": "'patch'"}) == {"autoencoder.type": "'patch'"}
    config = load_config(write_config(tmp_path, "run", STEPS))
    assert set(dataclasses.asdict(config)["stages"]) == set(STAGES)
