"""A loss and a network are one file each: a run trains with them, and its checkpoint restores pictures."""

import json
from pathlib import Path

import pytest
import torch

from allosr2_core.checkpoint.format import load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.pipeline import Pipeline
from tests.support.added_file import TOY_LOSS, TOY_NETWORK, added_file
from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_photos
from train.__main__ import main
from train.config_file import load_config


def test_a_run_with_a_loss_and_a_network_of_one_file_each(tmp_path: Path) -> None:
    write_photos(tmp_path, "train", [(100, 140)])
    write_photos(tmp_path, "val", [(80, 70)])
    table, config, out = tiny_table(tmp_path, steps=1), tmp_path / "toy.toml", tmp_path / "toy.safetensors"
    table["network"] = {"type": "toy", "params": {"width": 8}}
    table["stages"]["sr"]["weights"] = {"rec_latent": 1.0, "toy": 0.5}
    table["stages"]["sr"]["adversary"]["network"] = ""
    config.write_text(to_toml(table), encoding="utf-8")
    with (
        added_file("allosr2_core.networks", tmp_path, TOY_NETWORK),
        added_file("allosr2_core.losses", tmp_path, TOY_LOSS),
    ):
        assert run_autoencoder(config) == 0
        assert main(["prior", "--config", str(config)]) == 0
        assert main(["sr", "--config", str(config)]) == 0
        lines = [json.loads(line) for line in (tmp_path / "run" / "sr" / "log.jsonl").read_text().splitlines()]
        assert 0 < next(line["toy"] for line in lines if "toy" in line) < 1
        assert main(["export", "--config", str(config), "--out", str(out), "--pairs", "2"]) == 0
        picture = Pipeline.from_checkpoint(load_checkpoint(out)).upscale(torch.rand(1, 12, 10, 3))
        assert picture.shape == (1, 48, 40, 3) and bool(torch.isfinite(picture).all())
    with pytest.raises(AlloSR2Error, match="weights: expected losses like .*; got 'toy'"):
        load_config(config)
