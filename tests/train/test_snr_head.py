"""The SNR head alone: it learns, what it learns on stays as it was, and it starts where the configuration says."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from allosr2_core.checkpoint.format import load_checkpoint
from allosr2_core.snr import paired_rho
from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_photos
from train.__main__ import main
from train.config_file import load_config
from train.data.crops import bicubic_up
from train.loop.rng import BatchRandom
from train.stages.snr_head import SNRHeadStage


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose first three stages were run."""
    root = tmp_path_factory.mktemp("head")
    write_photos(root, "train", [(100, 140), (128, 96)])
    write_photos(root, "val", [(80, 70), (140, 130)])
    config = root / "tiny.toml"
    config.write_text(to_toml(tiny_table(root)), encoding="utf-8")
    assert run_autoencoder(config) == 0
    for stage in ("prior", "sr"):
        assert main([stage, "--config", str(config)]) == 0
    return config


def batch_of(stage: SNRHeadStage) -> dict[str, Tensor]:
    items = [stage.dataset(0)[i] for i in range(4)]
    return {key: torch.stack([item[key] for item in items]) for key in items[0]}


def loss_of(stage: SNRHeadStage, batch: dict[str, Tensor]) -> Tensor:
    terms = stage(batch, 0, BatchRandom.seeded(0))
    assert terms.keys() == stage.weights.keys()
    return torch.stack([stage.weights[name] * value for name, value in terms.items()]).sum()


def test_it_learns_and_the_encoder_stays(trained: Path) -> None:
    stage = SNRHeadStage(load_config(trained))
    batch, encoder = batch_of(stage), {k: v.clone() for k, v in stage.autoencoder.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=1e-3)
    before = float(loss_of(stage, batch).detach())
    for _ in range(20):
        optimizer.zero_grad()
        loss_of(stage, batch).backward()
        optimizer.step()
    assert float(loss_of(stage, batch).detach()) < 0.5 * before
    assert all(torch.equal(value, encoder[name]) for name, value in stage.autoencoder.state_dict().items())


def test_the_photograph_is_encoded_as_before_the_sr_stage_and_the_input_as_after_it(trained: Path) -> None:
    config = load_config(trained)
    stage, run = SNRHeadStage(config), Path(config.run.dir)
    tuned = load_file(run / "sr" / "encoder.safetensors")
    plain = load_file(run / "autoencoder" / "autoencoder.safetensors")
    assert any(not torch.equal(value, plain[f"encoder.{name}"]) for name, value in tuned.items())
    hr = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    lr = torch.nn.functional.avg_pool2d(hr, 4)
    z_lr, z_hr = stage._latents(hr, lr)
    before = {k.removeprefix("encoder."): v for k, v in plain.items() if k.startswith("encoder.")}
    for pixels, weights, expected in ((bicubic_up(lr, 4), tuned, z_lr), (hr, before, z_hr)):
        stage.autoencoder.network.encoder.load_state_dict(weights)
        torch.testing.assert_close(stage.autoencoder.network.encode(pixels * 2 - 1), expected)


def test_validation_sees_photographs_at_full_and_at_half_size(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.stages.snr_head.VALIDATION_SIDE", 64)
    stage = SNRHeadStage(load_config(trained))
    assert [tuple(e.lr.shape[2:]) for e in stage.validation] == [(16, 16)] * 9  # the smaller photograph has no half
    figures = stage.preview().figures
    with torch.no_grad():
        guesses = torch.cat([stage.trained["snr_head"](e.z_lr) for e in stage.validation])
    truth = torch.cat([paired_rho(e.z_lr, e.z_hr) for e in stage.validation]).log()
    assert figures["bias"] == pytest.approx(float((guesses - truth).mean()), abs=1e-5)
    assert figures["correlation"] == pytest.approx(float(torch.corrcoef(torch.stack([guesses, truth]))[0, 1]), abs=1e-4)


def test_a_head_older_than_the_encoder_is_not_put_into_a_checkpoint(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = Path(load_config(trained).run.dir), tmp_path / "tiny.safetensors"
    assert main(["snr_head", "--config", str(trained)]) == 0
    written = (run / "sr" / "encoder.safetensors").stat().st_mtime
    os.utime(run / "snr_head" / "snr_head.safetensors", (written - 1, written - 1))
    assert main(["export", "--config", str(trained), "--out", str(out), "--pairs", "2"]) == 1
    assert "is older: move" in capsys.readouterr().err and not out.exists()
    os.utime(run / "snr_head" / "snr_head.safetensors", (written + 1, written + 1))
    assert main(["export", "--config", str(trained), "--out", str(out), "--pairs", "2"]) == 0


def test_a_head_of_another_width_starts_anew_and_is_the_one_in_the_checkpoint(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, table, out = Path(load_config(trained).run.dir), tiny_table(tmp_path), tmp_path / "wide.safetensors"
    table["data"]["root"], table["stages"]["snr_head"]["hidden"] = load_config(trained).data.root, 24
    config = tmp_path / "wide.toml"
    config.write_text(to_toml(table), encoding="utf-8")
    (tmp_path / "run").mkdir()
    for stage in ("autoencoder", "prior", "sr"):
        (tmp_path / "run" / stage).symlink_to(source / stage)
    with caplog.at_level("INFO"):
        assert main(["snr_head", "--config", str(config)]) == 0
    assert "is 16 wide; one of 24 starts anew" in caplog.text
    assert main(["export", "--config", str(config), "--out", str(out), "--pairs", "2"]) == 0
    written = load_checkpoint(out).build_snr_head().state_dict()
    assert written["conv_in.weight"].shape[0] == 24
    trained_head = load_file(tmp_path / "run" / "snr_head" / "snr_head.safetensors")
    assert all(torch.equal(trained_head[name].half().float(), value) for name, value in written.items())


def test_without_a_stage_before_it_the_missing_command_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tiny_table(tmp_path)
    config = tmp_path / "early.toml"
    config.write_text(to_toml(table), encoding="utf-8")
    source = Path(load_config(trained).run.dir)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "autoencoder").symlink_to(source / "autoencoder")
    (tmp_path / "run" / "prior").symlink_to(source / "prior")
    assert main(["snr_head", "--config", str(config)]) == 1
    assert "run `python -m train sr` first" in capsys.readouterr().err
