"""All training stages on made-up photographs, by the commands a user types, down to a checkpoint that upscales."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from allosr2_core.checkpoint.format import load_checkpoint
from allosr2_core.flow import t_from_rho
from allosr2_core.pipeline import Pipeline, prepare
from tests.support.parts import enlarged
from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_photos
from train.__main__ import main
from train.checkpoints import export
from train.config import Config
from train.config_file import load_config
from train.data.crops import bicubic_up
from train.loop.rng import BatchRandom
from train.stages.prior import BOTH_FLOWS, PriorStage, flow_matching_error
from train.stages.registry import STAGES
from train.stages.sr import SRStage


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """Run every stage; the prior in two sittings. Returns the checkpoint's path and the configuration."""
    root = tmp_path_factory.mktemp("training")
    write_photos(root, "train", [(100, 140), (128, 96), (80, 200)])
    write_photos(root, "val", [(80, 70), (64, 100)])
    config = root / "tiny.toml"
    config.write_text(to_toml(tiny_table(root)), encoding="utf-8")
    assert run_autoencoder(config) == 0
    assert main(["prior", "--config", str(config), "--max-steps", "2"]) == 0
    assert main(["prior", "--config", str(config)]) == 0
    assert main(["sr", "--config", str(config)]) == 0
    assert main(["snr_head", "--config", str(config)]) == 0
    out = root / "out" / "tiny.safetensors"
    assert main(["export", "--config", str(config), "--out", str(out), "--pairs", "6"]) == 0
    return out, load_config(config)


def log_of(config: Config, stage: str) -> list[dict[str, Any]]:
    text = (Path(config.run.dir) / stage / "log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_every_term_of_every_stage_is_logged_by_name(trained: tuple[Path, Config]) -> None:
    _, config = trained
    assert {"clean", "clean_mse", "noised", "perceptual"} <= log_of(config, "autoencoder")[1].keys()
    assert {"anchor"} <= log_of(config, "prior")[1].keys()
    lines = log_of(config, "sr")
    terms = {
        "rec_pixel",
        "rec_latent",
        "lattice",
        "repeat",
        "grain",
        "decode",
        "fatc",
        "anchor",
        "snr_head",
        "snr_map",
        "t_mean",
        "t_std",
        "t_error",
    }
    assert terms <= lines[1].keys()
    straightening, matching = {"fatc", "anchor"}, {"atm_fake", "atm_match"}  # take turns; a line for each step here
    assert not matching & lines[1].keys() and not straightening & lines[2].keys()
    assert matching | terms - straightening <= lines[2].keys()
    figures = lines[-1]
    assert {
        "val_psnr",
        "val_psnr_bicubic",
        "val_psnr_4steps",
        "val_psnr_paired",
        "val_curvature",
        "val_t_error",
        "val_drift",
    } <= figures.keys()
    for stage in STAGES:
        values = [value for line in log_of(config, stage) for value in line.values()]
        assert all(value == value for value in values), stage  # no NaN


def test_the_linear_basis_alone_reconstructs_well(trained: tuple[Path, Config]) -> None:
    _, config = trained
    assert log_of(config, "autoencoder")[-1]["val_psnr"] > 20.0  # 8 of 48 components of noisy pictures


def test_every_stage_shows_pictures(trained: tuple[Path, Config]) -> None:
    _, config = trained
    for stage in STAGES:
        assert (Path(config.run.dir) / stage / "previews" / "000004.png").stat().st_size > 1000


def test_the_checkpoint_says_how_it_was_made(trained: tuple[Path, Config]) -> None:
    path, config = trained
    checkpoint = load_checkpoint(path)
    spec, record = checkpoint.config, checkpoint.training
    assert config.stages.sr.t_min <= spec.t_star <= config.stages.sr.t_max
    assert (spec.init, spec.trained_size, spec.latent_channels, spec.latent_downscale) == ("aligned", 64, 8, 4)
    assert {name: stage["steps"] for name, stage in record["stages"].items()} == {
        "autoencoder": 4,
        "prior": 4,
        "sr": 4,
        "snr_head": 4,
    }
    low, median, high = record["t_quantiles_05_50_95"]
    assert 0 < low <= median <= high < 1
    assert record["pairs"] == 6 and record["config"]["stages"]["prior"]["t_logit_std"] == 1.0
    assert str(path.parents[1]) not in json.dumps(record)


def test_the_checkpoint_holds_the_averaged_weights(trained: tuple[Path, Config]) -> None:
    path, config = trained
    checkpoint, folder = load_checkpoint(path), Path(config.run.dir)
    for module, name in (
        (checkpoint.build_prior(), "prior/velocity"),
        (checkpoint.build_network(), "sr/velocity"),
        (checkpoint.build_snr_head(), "snr_head/snr_head"),
        (checkpoint.build_autoencoder().encoder, "sr/encoder"),
        (checkpoint.build_autoencoder().decoder, "sr/decoder"),
    ):
        for key, value in load_file(folder / f"{name}.safetensors").items():
            torch.testing.assert_close(module.state_dict()[key], value, atol=2e-3, rtol=2e-3)  # stored in fp16
    plain = load_file(folder / "autoencoder" / "autoencoder.safetensors")
    for key, value in checkpoint.build_autoencoder(0.0).encoder.state_dict().items():
        torch.testing.assert_close(value, plain[f"encoder.{key}"], atol=2e-3, rtol=2e-3)
    assert any(bool(value.any()) for value in checkpoint.group("lora.transformer.").values())
    assert any(bool(value.any()) for value in checkpoint.group("lora.vae_encoder.").values())


def test_the_checkpoint_upscales(trained: tuple[Path, Config]) -> None:
    path, _ = trained
    picture = torch.rand(1, 13, 9, 3, generator=torch.Generator().manual_seed(0))
    result = Pipeline.from_checkpoint(load_checkpoint(path)).upscale(picture)
    assert result.shape == (1, 52, 36, 3)
    assert float(result.std()) > 0.05


def test_the_encoder_sees_at_inference_what_it_saw_in_training(trained: tuple[Path, Config]) -> None:
    path, _ = trained
    lr = torch.rand(1, 24, 16, 3, generator=torch.Generator().manual_seed(0))
    seen = enlarged(prepare(lr, load_checkpoint(path).config, scale=4.0))
    torch.testing.assert_close(seen.movedim(-1, 1), bicubic_up(lr.movedim(-1, 1), 4), atol=1e-6, rtol=0)


def test_the_flow_matching_error_of_the_best_constant_answer() -> None:
    """Data 0: the target is the noise, v = 0 leaves its variance, and v = z/t leaves nothing."""
    latents = [torch.zeros(1, 4, 32, 32)]
    silent = flow_matching_error(lambda z, t: torch.zeros_like(z), latents)  # type: ignore[arg-type]
    exact = flow_matching_error(lambda z, t: z / t[:, None, None, None], latents)  # type: ignore[arg-type]
    assert silent == pytest.approx(1.0, abs=0.05)
    assert exact == pytest.approx(0.0, abs=1e-9)


def test_the_prior_sees_a_share_of_the_photographs_under_negative_times(trained: tuple[Path, Config]) -> None:
    _, config = trained
    stage, times = PriorStage(config), list[Tensor]()
    stage.trained["velocity"].register_forward_pre_hook(lambda module, inputs: times.append(inputs[1]))
    stage({"hr": torch.rand(200, 3, 16, 16)}, 0, BatchRandom.seeded(0))
    (t_B,) = times
    assert float((t_B < 0).float().mean()) == pytest.approx(BOTH_FLOWS, abs=0.1)
    assert bool(((t_B.abs() > 0) & (t_B.abs() < 1)).all())


# ---- the SR stage ----


def sr_stage(config: Config, **changes: Any) -> tuple[SRStage, dict[str, Tensor]]:
    """The stage as a new run starts it, with some settings changed, and one batch of its data."""
    stages = dataclasses.replace(config.stages, sr=dataclasses.replace(config.stages.sr, **changes))
    stage = SRStage(dataclasses.replace(config, stages=stages))
    items = [stage.dataset(0)[i] for i in range(4)]
    return stage, {key: torch.stack([item[key] for item in items]) for key in items[0]}


def test_every_pair_starts_at_its_own_time_or_at_the_guess(trained: tuple[Path, Config]) -> None:
    _, config = trained
    wide = {"t_min": 0.001, "t_max": 0.999}
    stage, batch = sr_stage(config, t_jitter=0.0, t_guessed=0.0, **wide)
    terms = stage(batch, 0, BatchRandom.seeded(0))
    with torch.no_grad():
        z_hr = stage.encode_hr(batch["hr"] * 2 - 1)
        z_lr = stage.trained["encoder"](bicubic_up(batch["lr"], 4) * 2 - 1)
    rho = (z_lr - z_hr).square().mean(dim=(1, 2, 3)).sqrt()
    own = rho / (1 + rho)
    assert float(own.max() - own.min()) > 0.01
    torch.testing.assert_close(terms["t_mean"], own.mean())
    torch.testing.assert_close(terms["t_std"], own.std(correction=0))

    guessing, _ = sr_stage(config, t_jitter=0.0, t_guessed=1.0, **wide)
    with torch.no_grad():
        guess = t_from_rho(guessing.trained["snr_head"](z_lr).exp())
    terms = guessing(batch, 0, BatchRandom.seeded(0))
    torch.testing.assert_close(terms["t_mean"], guess.mean())
    torch.testing.assert_close(terms["t_error"], (guess - own).abs().mean())

    jittered, _ = sr_stage(config, t_jitter=0.5, t_guessed=0.0, **wide)
    assert not torch.equal(jittered(batch, 0, BatchRandom.seeded(0))["t_mean"], own.mean())
    limited, _ = sr_stage(config, t_jitter=0.5, t_min=0.1, t_max=0.1)
    assert float(limited(batch, 0, BatchRandom.seeded(0))["t_mean"]) == pytest.approx(0.1)


def test_the_whole_loss_trains_what_is_trained_and_nothing_else(trained: tuple[Path, Config]) -> None:
    _, config = trained
    stage, batch = sr_stage(config)
    straightening, matching = (stage(batch, step, BatchRandom.seeded(step)) for step in (0, 1))
    assert straightening.keys() ^ matching.keys() == {"fatc", "anchor", "atm_fake", "atm_match"}
    assert {"fatc", "anchor"} < straightening.keys()
    assert stage.weights.keys() == (straightening | matching).keys() & stage.weights.keys()
    for terms in (straightening, matching):
        weighted = [stage.weights[name] * term for name, term in terms.items() if name in stage.weights]
        torch.stack(weighted).sum().backward()
    assert stage.adversary is not None
    trained_ids = {id(parameter) for parameter in [*stage.trained.parameters(), *stage.adversary.learning]}
    for name, parameter in stage.named_parameters():
        if id(parameter) in trained_ids:
            assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        else:
            assert parameter.grad is None and not parameter.requires_grad, name
    grouped = [id(p) for group in stage.parameter_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in stage.trained.parameters())


def test_a_step_is_a_pure_function_of_batch_step_and_generator(trained: tuple[Path, Config]) -> None:
    _, config = trained
    (one, batch), (two, same) = sr_stage(config), sr_stage(config)
    assert all(torch.equal(batch[key], same[key]) for key in batch)
    first, second = (s(batch, 1, BatchRandom.seeded(7)) for s in (one, two))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_checkpoint_goes_into_the_runs_folder_unless_it_is_told_elsewhere(
    trained: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that ships is replaced by an explicit flag alone, and never by an adapter."""
    path, config = trained
    shipped = tmp_path / "shipped.safetensors"
    shipped.write_bytes(b"shipped")
    monkeypatch.setattr(export, "embedded_path", lambda: shipped)
    command = ["export", "--config", str(path.parents[1] / "tiny.toml"), "--pairs", "2"]
    assert main(command) == 0
    assert shipped.read_bytes() == b"shipped"
    load_checkpoint(Path(config.run.dir) / "checkpoint.safetensors")
    assert main([*command, "--embedded"]) == 0
    load_checkpoint(shipped)
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--embedded", "--out", str(tmp_path / "other.safetensors")])
    adapter = tiny_table(tmp_path)
    adapter["adapter"] |= {"rank": 2, "alpha": 2.0}
    (tmp_path / "adapter.toml").write_text(to_toml(adapter), encoding="utf-8")
    assert main(["export", "--config", str(tmp_path / "adapter.toml"), "--embedded"]) == 1
    assert "--embedded: expected a checkpoint with its own base" in capsys.readouterr().err


# ---- commands that cannot work ----


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["sr", "--max-steps", "0"], "--max-steps: expected at least 1; got 0"),
        (["export", "--pairs", "0"], "--pairs: expected at least 1; got 0"),
        (["throughput", "--steps", "-1"], "--steps: expected at least 1; got -1"),
        (["evaluate", "--limit", "x"], "--limit: expected a whole number; got 'x'"),
    ],
)
def test_numbers_of_commands_have_a_range(command: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert said in capsys.readouterr().err


def test_stages_without_what_they_need_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(to_toml(tiny_table(tmp_path)), encoding="utf-8")
    assert main(["sr", "--config", str(tmp_path / "none.toml")]) == 1
    assert "there is none" in capsys.readouterr().err
    assert run_autoencoder(config) == 1
    assert "python -m train photos" in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["trian"]) == 2
    assert main(["--help"]) == 0
    assert "autoencoder" in capsys.readouterr().err


def test_a_checkpoint_can_be_unpacked_and_trained_on(trained: tuple[Path, Config], tmp_path: Path) -> None:
    path, _ = trained
    write_photos(tmp_path, "train", [(100, 140)])
    write_photos(tmp_path, "val", [(80, 70)])
    config = tmp_path / "tiny.toml"
    config.write_text(to_toml(tiny_table(tmp_path, steps=1)), encoding="utf-8")
    assert main(["unpack", str(path), "--config", str(config)]) == 0
    assert main(["unpack", str(path), "--config", str(config)]) == 1  # never over something
    unpacked = tmp_path / "run" / "unpacked"
    network = load_checkpoint(path).build_network().state_dict()
    assert all(torch.equal(network[k], v) for k, v in load_file(unpacked / "velocity.safetensors").items())
    assert main(["sr", "--config", str(config), "--init-from", str(unpacked)]) == 0
    tuned = load_file(tmp_path / "run" / "sr" / "velocity.safetensors")
    moved = max(float((tuned[k] - v).abs().max()) for k, v in network.items())
    assert 0 < moved < 5e-3  # one step of at most lr away from the checkpoint, not from a fresh network
    out = tmp_path / "continued.safetensors"
    assert main(["export", "--config", str(config), "--out", str(out), "--pairs", "2"]) == 0
    record = load_checkpoint(out).training
    assert record["stages"]["sr"]["steps"] == 1
    assert record["continues"] == [load_checkpoint(path).training]


def test_a_run_that_starts_from_another_keeps_its_history_and_may_freeze_the_decoder(
    trained: tuple[Path, Config], tmp_path: Path
) -> None:
    path, before = trained
    write_photos(tmp_path, "train", [(100, 140)])
    write_photos(tmp_path, "val", [(80, 70)])
    table = tiny_table(tmp_path, steps=1)
    table["stages"]["sr"]["decoder_lr"] = table["stages"]["sr"]["weights"]["decode"] = 0.0
    config = tmp_path / "frozen.toml"
    config.write_text(to_toml(table), encoding="utf-8")
    (tmp_path / "run").mkdir()
    for stage in ("autoencoder", "prior"):
        (tmp_path / "run" / stage).symlink_to(Path(before.run.dir) / stage)
    assert main(["sr", "--config", str(config), "--init-from", str(Path(before.run.dir) / "sr")]) == 0
    assert not (tmp_path / "run" / "sr" / "decoder.safetensors").exists()
    out = tmp_path / "frozen.safetensors"
    assert main(["export", "--config", str(config), "--out", str(out), "--pairs", "2"]) == 0
    checkpoint = load_checkpoint(out)
    (run,) = checkpoint.training["continues"]
    assert run["steps"] == 4 and run["hours"] >= 0 and run["settings"]["stages.sr.decoder_lr"] == "0.5"
    plain = load_file(tmp_path / "run" / "autoencoder" / "autoencoder.safetensors")
    for key, value in checkpoint.build_autoencoder().decoder.state_dict().items():
        torch.testing.assert_close(value, plain[f"decoder.{key}"], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("other", ["network", "head"])
def test_a_checkpoint_of_other_networks_is_not_unpacked(
    trained: tuple[Path, Config], tmp_path: Path, other: str
) -> None:
    path, _ = trained
    table = tiny_table(tmp_path)
    if other == "network":
        table["network"]["params"]["channels"] = [8, 16]
    else:
        table["stages"]["snr_head"]["hidden"] *= 2
    config = tmp_path / "wide.toml"
    config.write_text(to_toml(table), encoding="utf-8")
    assert main(["unpack", str(path), "--config", str(config)]) == 1
    assert not (tmp_path / "run").exists()
