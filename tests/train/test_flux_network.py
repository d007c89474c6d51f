"""The FLUX-class transformer through the same stages: prior, SR flow, calibration, a checkpoint that upscales."""

from pathlib import Path

import torch

from allosr2_core.checkpoint.format import load_checkpoint
from allosr2_core.pipeline import Pipeline
from tests.support.tiny_flux import TINY_FLUX
from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_photos
from train.__main__ import main


def test_every_stage_and_tiles_of_the_trained_size(tmp_path: Path) -> None:
    write_photos(tmp_path, "train", [(100, 140)])
    write_photos(tmp_path, "val", [(80, 70)])
    table = tiny_table(tmp_path, steps=2)
    table["network"] = {"type": "flux", "params": TINY_FLUX}
    config, out = tmp_path / "tiny.toml", tmp_path / "tiny.safetensors"
    config.write_text(to_toml(table), encoding="utf-8")
    assert run_autoencoder(config) == 0
    for stage in ("prior", "sr"):
        assert main([stage, "--config", str(config)]) == 0
    assert main(["export", "--config", str(config), "--out", str(out), "--pairs", "2"]) == 0
    checkpoint = load_checkpoint(out)
    assert checkpoint.config.tile_size == table["data"]["crop"]  # attention has seen no larger picture
    before, after = (network.state_dict() for network in (checkpoint.build_prior(), checkpoint.build_network()))
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert all("txt_mlp" in name for name in still)  # zero-initialised modulation: two steps reach no deeper
    picture = Pipeline.from_checkpoint(checkpoint).upscale(torch.rand(1, 30, 37, 3))
    assert picture.shape == (1, 120, 148, 3) and bool(torch.isfinite(picture).all())
