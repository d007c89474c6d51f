"""Training configurations: every key present, known and of its type, or an error that names it."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from allosr2_core.errors import AlloSR2Error
from tests.support.tiny_training import tiny_table, to_toml
from train.config import Config
from train.config_file import from_table, load_config
from train.config_stages import OptimConfig
from train.loop.optimizers import make_optimizer
from train.models.build import build_autoencoder, build_velocity
from train.perceptual.distances import DISTANCES

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "train" / "configs"


def changed(root: Path, path: str, value: Any) -> dict[str, Any]:
    """The tiny table with one entry, named like "prior.optim.lr", set (or dropped where value is None)."""
    table = tiny_table(root)
    *parents, key = path.split(".")
    inner = table
    for parent in parents:
        inner = inner[parent]
    if value is None:
        del inner[key]
    else:
        inner[key] = value
    return table


def test_a_file_becomes_the_dataclasses_it_describes(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(tiny_table(tmp_path)), encoding="utf-8")
    config = load_config(path)
    assert config == from_table(Config, tiny_table(tmp_path), "tiny.toml")
    assert config.stages.prior.optim == OptimConfig("adamw", 4, 2, 0, 1e-3, 1, 2, 0.9, 1.0)
    assert config.data.strengths == (0.25, 0.5, 0.25)
    assert config.stages.sr.perceptual == ()
    assert config.network.params["channels"] == [8, 12]
    assert dataclasses.asdict(config).keys() == tiny_table(tmp_path).keys()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_the_configurations_we_ship_are_read(path: Path) -> None:
    config = load_config(path)
    assert config.data.crop % 16 == 0
    assert not Path(config.run.dir).is_absolute() and not Path(config.data.root).is_absolute()
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in build(config).parameters()) for build in (build_velocity, build_autoencoder)]
    assert sizes[0] > 1e6 and sizes[1] > 1e5
    assert config.stages.sr.perceptual and set(config.stages.sr.perceptual) <= DISTANCES.keys()
    for stage in (config.stages.autoencoder, config.stages.prior, config.stages.sr):
        make_optimizer(stage.optim, [{"params": [torch.nn.Parameter(torch.zeros(2))]}])


def test_a_misspelt_key_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match=r"x: unknown key 'autoencodr'; did you mean 'autoencoder'\?"):
        from_table(Config, {**tiny_table(tmp_path), "autoencodr": {}}, "x")
    with pytest.raises(AlloSR2Error, match=r"x.stages.prior.optim: unknown key 'warm_up'; did you mean 'warmup'\?"):
        from_table(Config, changed(tmp_path, "stages.prior.optim.warm_up", 5), "x")
    with pytest.raises(AlloSR2Error, match="x.run: unknown key 'zzz'; known keys: dir, seed, threads"):
        from_table(Config, changed(tmp_path, "run.zzz", 5), "x")


@pytest.mark.parametrize(
    "path", ["run", "run.seed", "stages.sr.weights", "stages.autoencoder.optim.ema", "network.params"]
)
def test_a_missing_key_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(AlloSR2Error, match=f"missing {path.rpartition('.')[2]}"):
        from_table(Config, changed(tmp_path, path, None), "x")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("run.seed", 1.0, r"x.run.seed: expected int; got 1.0"),
        ("run.seed", True, "expected int; got True"),
        ("run.dir", 5, "expected str; got 5"),
        ("run.save_minutes", "5", "expected float; got '5'"),
        ("run.save_minutes", True, "expected float; got True"),
        ("run.save_minutes", float("nan"), "expected a finite number"),
        ("data", 5, "x.data: expected a table; got 5"),
        ("data.strengths", 0.5, "expected a list; got 0.5"),
        ("data.strengths", [0.5, 0.5], "expected 3 values"),
        ("data.strengths", [0.5, 0.5, "0"], "x.data.strengths: expected float; got '0'"),
        ("stages.sr.perceptual", "vgg", "expected a list; got 'vgg'"),
        ("stages.sr.perceptual", ["a", 1], "expected str; got 1"),
        ("network.params", [8], r"expected a table; got \[8\]"),
    ],
)
def test_a_wrong_type_is_named(tmp_path: Path, path: str, value: object, reason: str) -> None:
    with pytest.raises(AlloSR2Error, match=reason):
        from_table(Config, changed(tmp_path, path, value), "x")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("run.threads", -1, "x.run.threads: expected at least 0; got -1"),
        ("run.precision", "bf61", "x.run.precision: expected one of 'no', 'bf16', 'fp16', 'auto'; got 'bf61'"),
        ("run.save_minutes", -1.0, "x.run.save_minutes: expected at least 0; got -1.0"),
        ("run.log_every", 0, "x.run.log_every: expected at least 1; got 0"),
        ("run.preview_every", -1, "x.run.preview_every: expected at least 0; got -1"),
        ("data.crop", 24, "x.data.crop: expected at least 16 and a multiple of 16; got 24"),
        ("data.workers", -1, "x.data.workers: expected at least 0; got -1"),
        ("data.zoom", [0.0, 1.0], "x.data.zoom: expected above 0; got 0.0"),
        ("data.zoom", [2.0, 1.0], "x.data: zoom: expected the smaller number first; got [2.0, 1.0]"),
        ("data.strengths", [0.0, 0.0, 0.0], "x.data: strengths: expected a share above 0"),
        ("data.sources", [{"hr": "a", "lr": "", "weight": 0.0}], "x.data.sources.weight: expected above 0; got 0.0"),
        ("base.dtype", "fp8", "x.base.dtype: expected one of 'fp32', 'bf16'; got 'fp8'"),
        ("adapter.rank", -4, "x.adapter.rank: expected at least 0; got -4"),
        ("adapter.rank", 4, "x.adapter: alpha: expected above 0 for a rank of 4; got 0"),
        ("stages.prior.optim.optimizer", "adan", "optimizer: expected one of 'adamw', 'muon'; got 'adan'"),
        ("stages.prior.optim.steps", -1, "x.stages.prior.optim.steps: expected at least 0; got -1"),
        (
            "stages.prior.optim.steps",
            1,
            "x.stages.prior.optim: decay: expected at most the 1 steps of the stage; got 2",
        ),
        ("stages.prior.optim.warmup", 5, "warmup: expected at most the 4 steps of the stage; got 5"),
        ("stages.prior.optim.decay", 5, "decay: expected at most the 4 steps of the stage; got 5"),
        ("stages.prior.optim.batch", 0, "x.stages.prior.optim.batch: expected at least 1; got 0"),
        ("stages.prior.optim.micro", -1, "x.stages.prior.optim.micro: expected at least 0; got -1"),
        ("stages.prior.optim.lr", -1e-3, "x.stages.prior.optim.lr: expected at least 0; got -0.001"),
        ("stages.prior.optim.lr", 0.0, "x.stages.prior.optim: lr: expected above 0; got 0"),
        ("stages.prior.optim.ema", 1.5, "x.stages.prior.optim.ema: expected at least 0 and below 1; got 1.5"),
        ("stages.prior.optim.grad_clip", 0.0, "x.stages.prior.optim.grad_clip: expected above 0; got 0.0"),
        ("stages.prior.t_logit_std", -1.0, "t_logit_std: expected at least 0; got -1.0"),
        ("stages.autoencoder.pca_patches", 0, "pca_patches: expected at least 1; got 0"),
        ("stages.sr.t_min", 0.7, "x.stages.sr: t_min: expected at most t_max, 0.6; got 0.7"),
        ("stages.sr.t_max", 1.1, "x.stages.sr.t_max: expected above 0 and at most 1; got 1.1"),
        ("stages.sr.t_guessed", 1.1, "x.stages.sr.t_guessed: expected at least 0 and at most 1; got 1.1"),
        ("stages.sr.atm_t", [0.6, 0.1], "x.stages.sr: atm_t: expected the smaller number first; got [0.6, 0.1]"),
        ("stages.sr.encoder_lr", -0.5, "x.stages.sr.encoder_lr: expected at least 0; got -0.5"),
        ("stages.sr.paths_every", 0, "x.stages.sr.paths_every: expected at least 1; got 0"),
        ("stages.sr.weights.fatc", -0.1, "x.stages.sr.weights.fatc: expected at least 0; got -0.1"),
        ("stages.sr.adversary.lr", 0.0, "x.stages.sr.adversary.lr: expected above 0; got 0.0"),
        ("stages.snr_head.hidden", 0, "x.stages.snr_head.hidden: expected at least 1; got 0"),
        ("stages.snr_head.flat_share", -0.1, "flat_share: expected at least 0 and at most 1; got -0.1"),
    ],
)
def test_a_number_outside_its_range_is_named(tmp_path: Path, path: str, value: object, reason: str) -> None:
    with pytest.raises(AlloSR2Error, match=re.escape(reason)):
        from_table(Config, changed(tmp_path, path, value), "x")


def test_a_stage_without_steps_is_one_of_a_base(tmp_path: Path) -> None:
    table = changed(tmp_path, "stages.prior.optim", tiny_table(tmp_path, 0)["stages"]["prior"]["optim"])
    table["stages"]["prior"]["optim"] |= {"warmup": 0, "lr": 0.0}
    with pytest.raises(AlloSR2Error, match=re.escape("x: stages.prior.optim.steps: expected at least 1; got 0")):
        from_table(Config, table, "x")
    table["base"]["transformer"] = "flux1-dev.safetensors"
    assert from_table(Config, table, "x").stages.prior.optim.steps == 0


def numbers(kind: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every number of a configuration: its path and its annotation."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner = [part for part in get_args(hint) if isinstance(part, type) and dataclasses.is_dataclass(part)]
        inner += [hint] if isinstance(hint, type) and dataclasses.is_dataclass(hint) else []
        if inner:
            yield from numbers(inner[0], f"{where}{name}.")
        elif re.search(r"\b(int|float)\b", repr(hint)):
            yield f"{where}{name}", hint


def test_every_number_has_its_range_beside_it() -> None:
    """But the seed and the mean of a logit, which may be any."""
    free = [path for path, hint in numbers(Config) if "Range" not in repr(hint)]
    assert free == ["run.seed", "stages.prior.t_logit_mean"]


def test_whole_numbers_are_accepted_where_a_float_is_meant(tmp_path: Path) -> None:
    config = from_table(Config, changed(tmp_path, "run.save_minutes", 5), "x")
    assert config.run.save_minutes == 5.0 and type(config.run.save_minutes) is float


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match="there is none"):
        load_config(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("[run\nseed = 1")
    with pytest.raises(AlloSR2Error, match="expected TOML in .*broken.toml"):
        load_config(tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00r")
    with pytest.raises(AlloSR2Error, match="expected TOML in .*binary.toml"):
        load_config(tmp_path / "binary.toml")
    with pytest.raises(AlloSR2Error, match="expected a configuration file"):
        load_config(tmp_path)


# ---- configurations that extend others ----


def test_a_variant_states_what_differs(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text((CONFIGS / "mini.toml").read_text())
    (tmp_path / "variant.toml").write_text(
        'extends = "base.toml"\n[run]\nseed = 7\n'
        "[network]\nparams = { blocks = [1, 1, 1] }\n[stages.sr]\noptim = { lr = 0.5 }\n"
    )
    base, variant = load_config(tmp_path / "base.toml"), load_config(tmp_path / "variant.toml")
    assert (variant.run.seed, variant.stages.sr.optim.lr) == (7, 0.5)
    assert variant.network.params == {**base.network.params, "blocks": [1, 1, 1]}
    assert variant.stages.sr.optim.steps == base.stages.sr.optim.steps and variant.data == base.data
    (tmp_path / "again.toml").write_text('extends = "variant.toml"\n[run]\nseed = 8\n')
    again = load_config(tmp_path / "again.toml")
    assert (again.run.seed, again.stages.sr.optim.lr) == (8, 0.5)


def test_another_type_takes_nothing_of_the_bases_parameters(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text((CONFIGS / "mini.toml").read_text())
    (tmp_path / "v.toml").write_text('extends = "base.toml"\n[network]\ntype = "flux"\nparams = { depth = 2 }\n')
    assert load_config(tmp_path / "v.toml").network.params == {"depth": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "v.toml"\n', "extends itself"),
        ('extends = "other.toml"\n', "configuration file at .*other.toml; there is none"),
        ("extends = 3\n", "extends: expected the name of a file; got 3"),
        ('extends = "base.toml"\n[run]\nsede = 1\n', "unknown key 'sede'; did you mean 'seed'"),
        ('extends = "base.toml"\nrun = 3\n', "run: expected a table"),
    ],
)
def test_variants_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "base.toml").write_text((CONFIGS / "mini.toml").read_text())
    (tmp_path / "v.toml").write_text(text)
    with pytest.raises(AlloSR2Error, match=message):
        load_config(tmp_path / "v.toml")
