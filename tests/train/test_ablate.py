"""The ablation: variants are settings of the stage, runs are equal in all else, and it goes on where it stopped."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from tests.support.random_metrics import random_suite
from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_photos
from train.__main__ import main
from train.config_file import load_config
from train.studies import ablate
from train.studies.ablate import collect, load_ablation, table, variant_config
from train.studies.variant_stage import START_KEYS

SHIPPED = Path("train/ablation.toml")


def test_every_shipped_variant_differs_in_its_own_settings_only() -> None:
    ablation = load_ablation(SHIPPED)
    base = load_config(Path(ablation.base))
    full = variant_config(ablation, base, "full", 1)
    assert set(ablation.variants) >= {"full", "global_t", "raw_init", "no_fatc", "no_anchor", "no_atm", "rec_only"}
    for name, settings in ablation.variants.items():
        config = variant_config(ablation, base, name, 1)
        assert config.data == full.data and config.network == full.network
        assert dataclasses.replace(config.run, dir="") == dataclasses.replace(full.run, dir="")
        changed = {
            field.name
            for field in dataclasses.fields(config.stages.sr)
            if getattr(config.stages.sr, field.name) != getattr(full.stages.sr, field.name)
        }
        assert changed == set(settings) - START_KEYS, name
    assert variant_config(ablation, base, "full", 2).run.seed == 2
    assert full.stages.sr.optim.steps == ablation.optim["steps"] != base.stages.sr.optim.steps


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has been trained, and an ablation of two variants and two seeds on it."""
    root = tmp_path_factory.mktemp("ablation")
    write_photos(root, "train", [(100, 140)])
    write_photos(root, "val", [(96, 70), (80, 100)])
    config = root / "tiny.toml"
    config.write_text(to_toml(tiny_table(root, steps=2)), encoding="utf-8")
    assert run_autoencoder(config) == 0
    assert main(["prior", "--config", str(config)]) == 0
    noise = {"t_fixed": 0.5, "init": "raw", "start_noise": True}
    settings: dict[str, Any] = {
        "base": str(config),
        "dir": str(root / "ablation"),
        "seeds": [1, 2],
        "crop": 64,
        "optim": {"steps": 4, "decay": 2},
        "sr": {"weights": {"lattice": 0.3}},
        "variants": {"full": {}, "noise": noise},
    }
    (root / "ablation.toml").write_text(to_toml(settings), encoding="utf-8")
    return root


def test_settings_of_the_whole_ablation_hold_in_every_variant(study: Path) -> None:
    ablation = load_ablation(study / "ablation.toml")
    base = load_config(Path(ablation.base))
    configs = [variant_config(ablation, base, name, 1) for name in ablation.variants]
    assert [config.stages.sr.weight("lattice") for config in configs] == [0.3, 0.3] and base.stages.sr.weight(
        "lattice"
    ) != 0.3


def test_runs_are_made_once_and_go_on(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablate, "load_metric_suite", lambda root: random_suite())
    command = ["ablate", "--config", str(study / "ablation.toml")]
    assert main([*command, "--hours", "0"]) == 0
    assert not list((study / "ablation").glob("*/figures.json"))
    assert main([*command, "--seeds", "1", "--only", "full"]) == 0
    figures = study / "ablation" / "full-1" / "figures.json"
    before = figures.stat().st_mtime_ns
    assert main(command) == 0
    assert figures.stat().st_mtime_ns == before
    assert sorted(path.parent.name for path in (study / "ablation").glob("*/figures.json")) == [
        "full-1",
        "full-2",
        "noise-1",
        "noise-2",
    ]
    found = collect(load_ablation(study / "ablation.toml"))
    assert {
        "psnr_y",
        "st_lpips_vgg",
        "hed_dists",
        "curvature",
        "gap_4_steps",
        "drift",
        "drift_prior",
        "hours",
    } <= found["noise"][0].keys()
    assert found["full"][0]["psnr_y"] != found["noise"][0]["psnr_y"]
    capsys.readouterr()
    assert main([*command, "--table"]) == 0
    assert capsys.readouterr().out.count("| 2 |") == 2
    assert main([*command, "--sheet", str(study / "sheet.png")]) == 0
    assert main([*command, "--sheet", str(study / "second.png"), "--photos", "1.png"]) == 0
    with Image.open(study / "sheet.png") as sheet, Image.open(study / "second.png") as second:
        assert sheet.size == (4 * 64 + 3 * 4, 2 * 64 + 4)  # input, two variants, photograph
        assert second.tobytes() == sheet.crop((0, 68, sheet.width, sheet.height)).tobytes()
        cells = [sheet.crop((x, y, x + 64, y + 64)).tobytes() for x in range(0, 4 * 68, 68) for y in (0, 68)]
    assert len(set(cells)) == 8
    capsys.readouterr()
    assert main([*command, "--sheet", str(study / "none.png"), "--photos", "moon.png"]) == 1
    assert "expected names of validation photographs (0.png, 1.png); got moon.png" in capsys.readouterr().err
    assert not (study / "none.png").exists()
    assert main([*command, "--table", "--photos", "1.png"]) == 1
    assert "expected --sheet FILE beside it" in capsys.readouterr().err


def test_the_table_gives_mean_and_deviation() -> None:
    runs = [{"psnr_y": 20.0, "niqe": 5.0}, {"psnr_y": 22.0, "niqe": 5.0}]
    line = table({"full": runs, "once": runs[:1]}).splitlines()
    assert line[2].startswith("| full | 2 | 21.00 ± 1.41 |  |  | 5.00 ± 0.00 |")
    assert line[3].startswith("| once | 1 | 20.00 |  |  | 5.00 |")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": {"a": {"fact": 0.0}}}, "variants.a: expected settings of .stages.sr.; unknown: fact"),
        ({"variants": {"a": {"start_noise": True}}}, "start_noise: expected init 'raw'; got 'aligned'"),
        ({"optim": {"stesp": 2}}, "unknown key 'stesp'; did you mean 'steps'"),
        ({"sedes": [1]}, "unknown key 'sedes'; did you mean 'seeds'"),
    ],
)
def test_mistakes_are_named(
    study: Path,
    change: dict[str, Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ablate, "load_metric_suite", lambda root: random_suite())
    settings = {
        "base": str(study / "tiny.toml"),
        "dir": str(tmp_path),
        "seeds": [1],
        "crop": 64,
        "optim": {"steps": 2, "decay": 1},
        "sr": {},
    }
    settings |= {"variants": {"full": {}}} | change
    path = tmp_path / "wrong.toml"
    path.write_text(to_toml(settings), encoding="utf-8")
    assert main(["ablate", "--config", str(path)]) == 1
    error = capsys.readouterr().err
    assert all(part in error for part in message.replace(".stages.sr.", "[stages.sr]").split(" | ")), error
    assert main(["ablate", "--config", str(study / "ablation.toml"), "--only", "none"]) == 1
    assert "expected names of variants (full, noise); got none" in capsys.readouterr().err


def test_an_ablation_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match="expected an ablation at"):
        load_ablation(tmp_path / "none.toml")
