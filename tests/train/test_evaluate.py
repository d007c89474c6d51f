"""`python -m train evaluate` end to end on a made-up split, with random networks instead of the published weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from PIL import Image

from allosr2_core.checkpoint.format import load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from tests.support.random_metrics import random_suite
from tests.support.small_checkpoint import save_small_checkpoint
from train.evaluate import methods as eval_methods
from train.evaluate import run as evaluation
from train.evaluate.crops import centre_crop, degradation_seed, evenly, load_photo, load_photos, low_resolution
from train.evaluate.methods import METHODS, Method, ResultStore, load_method
from train.evaluate.peers import bicubic_x4
from train.evaluate.report import Record, report, spread, summarise, table, without_nan
from train.metrics import METRIC_NAMES, MetricSuite


@pytest.fixture(scope="module")
def suite() -> MetricSuite:
    return random_suite()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Data folder with a test split: two usable photos, one too small to measure."""
    folder = tmp_path / "photos" / "test"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, height, width in (("a.png", 100, 130), ("b.png", 200, 70), ("tiny.png", 40, 300)):
        coarse = torch.from_numpy(rng.random((1, 3, height // 8, width // 8)))
        picture = functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)
        Image.fromarray((picture.numpy() * 255).astype(np.uint8)).save(folder / name)
    return tmp_path


def counting_method(name: str = "allosr2") -> tuple[Method, list[int]]:
    calls: list[int] = []

    def restore(lr: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return functional.interpolate(lr, scale_factor=4, mode="nearest")

    return Method(name, f"{name} test", restore), calls


# ---------------------------------------------------------------------------------------------------------------- data


CROPS = [((1000, 700), (512, 512)), ((512, 511), (512, 480)), ((191, 384), (160, 384)), ((95, 64), (64, 64))]


@pytest.mark.parametrize(("size", "expected"), CROPS)
def test_crop_is_central_and_a_multiple_of_32(size: tuple[int, int], expected: tuple[int, int]) -> None:
    rows = torch.arange(size[0]).view(1, 1, -1, 1).expand(1, 3, *size).float()
    crop = centre_crop(rows)
    assert crop is not None and crop.shape[2:] == expected
    assert crop[0, 0, 0, 0].item() == (size[0] - expected[0]) // 2


def test_too_small_photos_are_left_out(root: Path) -> None:
    assert centre_crop(torch.zeros(1, 3, 63, 500)) is None
    assert load_photo(root / "photos" / "test" / "tiny.png") is None


def test_large_photos_are_reduced_and_others_left(tmp_path: Path) -> None:
    levels = torch.randint(0, 256, (1024, 1100, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    Image.fromarray(levels.numpy()).save(tmp_path / "large.png")
    half, whole = load_photo(tmp_path / "large.png", 2), load_photo(tmp_path / "large.png", 3)
    assert half is not None and whole is not None
    assert half.hr.shape == whole.hr.shape == (1, 3, 512, 512)
    means = levels.float().div(255).reshape(512, 2, 550, 2, 3).mean(dim=(1, 3)).permute(2, 0, 1)
    assert torch.allclose(half.hr[0], means[:, :, 19:531], atol=1e-5)
    assert torch.equal(whole.hr, centre_crop(levels.permute(2, 0, 1)[None].float().div(255)))  # 341 px would be less


def test_degradation_depends_on_name_and_strength_only(root: Path) -> None:
    photo = load_photo(root / "photos" / "test" / "a.png")
    assert photo is not None and photo.hr.shape == (1, 3, 96, 128)
    lr = low_resolution(photo, "real")
    assert lr.shape == (1, 3, 24, 32)
    assert torch.equal(lr, (lr * 255).round() / 255)
    torch.manual_seed(99)
    assert torch.equal(lr, low_resolution(photo, "real"))
    assert not torch.equal(lr, low_resolution(photo, "severe"))
    assert degradation_seed("a.png", "real") == 9075710617290396649  # on every machine, in every process


def test_limit_spreads_over_the_split() -> None:
    paths = [Path(str(number)) for number in range(10)]
    assert [p.name for p in evenly(paths, 3)] == ["0", "3", "6"]
    assert evenly(paths, None) == paths and evenly(paths, 99) == paths


# ------------------------------------------------------------------------------------------------------- measure, store


def test_evaluate_measures_everything_once(
    root: Path, suite: MetricSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, calls = counting_method()
    methods = [Method("bicubic", "bicubic", bicubic_x4), ours]
    store = ResultStore(tmp_path / "store")
    paths = sorted((root / "photos" / "test").iterdir())
    strips = tmp_path / "strips"
    records = evaluation.evaluate(load_photos(paths), ["mild", "real"], methods, suite, store, strips)
    assert len(records) == 2 * (1 + 2 * 2) and len(calls) == 4
    assert {record.photo for record in records} == {"a.png", "b.png"}
    for record in records:
        expected = METRIC_NAMES if record.method != "HR" else METRIC_NAMES[METRIC_NAMES.index("niqe") :]
        assert tuple(record.values) == tuple(expected)
        assert np.isnan(record.values["niqe"])  # these crops are below 192 px
    with Image.open(strips / "real" / "a.png.png") as strip:
        assert strip.size == (3 * 128, 96)  # bicubic | ours | reference

    again = evaluation.evaluate(load_photos(paths), ["mild", "real"], methods, suite, store)
    assert len(calls) == 4  # everything was found in the store
    assert without_nan([r.values for r in again]) == without_nan([r.values for r in records])

    monkeypatch.setattr(eval_methods, "METRICS_VERSION", 0)
    again = evaluation.evaluate(load_photos(paths), ["mild", "real"], methods, suite, store)
    assert len(calls) == 4  # other metrics measure the same pictures
    assert all(record.seconds >= 0 for record in again if record.method != "HR")

    changed = Method("allosr2", "other weights", ours.restore)
    evaluation.evaluate(load_photos(paths), ["real"], [changed], suite, store)
    assert len(calls) == 6


def test_a_picture_of_another_size_is_refused(root: Path, suite: MetricSuite) -> None:
    broken = Method("allosr2", "broken", lambda lr: lr)
    with pytest.raises(AlloSR2Error, match="expected a picture of shape"):
        paths = [root / "photos" / "test" / "a.png"]
        evaluation.evaluate(load_photos(paths), ["mild"], [broken], suite, ResultStore(None))


def test_store_keeps_nan_and_pictures(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    assert store.load("ab12") is None and store.load_picture("ab12") is None
    store.save("ab12", {"psnr_y": 20.5, "niqe": float("nan")})
    loaded = store.load("ab12")
    assert loaded is not None and loaded["psnr_y"] == 20.5 and np.isnan(loaded["niqe"])
    picture = torch.randint(0, 256, (1, 3, 8, 8)).float() / 255
    store.save_picture("ab12", picture)
    assert torch.allclose(store.load_picture("ab12"), picture, atol=1e-6)  # type: ignore[arg-type]
    assert ResultStore(None).load("ab12") is None


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(root: Path, suite: MetricSuite, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(evaluation, "load_metric_suite", lambda _: suite)
    monkeypatch.setattr(evaluation, "_describe", lambda _: {"file": "x.safetensors", "sha256": "0"})
    known = {"bicubic": Method("bicubic", "bicubic", bicubic_x4), "allosr2": counting_method()[0]}
    monkeypatch.setattr(evaluation, "load_method", lambda name, *_: known[name])
    return root


def test_command_prints_a_table_and_writes_the_files(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = command / "out"
    options = ["--root", str(command), "--methods", "bicubic,allosr2", "--strength", "real", "--out", str(out)]
    assert evaluation.main(options) == 0
    printed = capsys.readouterr().out
    assert "real, 2 photos" in printed and "| bicubic |" in printed and "| allosr2 |" in printed and "| HR |" in printed
    assert (out / "table.md").read_text() == printed
    assert json.loads((out / "figures.json").read_text())["left_out"] == ["tiny.png"]
    assert sorted(p.name for p in (out / "pictures" / "real").iterdir()) == ["a.png.png", "b.png.png"]


def test_command_prints_json(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--root", str(command), "--methods", "bicubic,allosr2", "--strength", "mild", "--limit", "1", "--json"]
    assert evaluation.main(options) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["photos"] == 1 and figures["checkpoint"]["file"] == "x.safetensors"
    columns = figures["summary"]["mild"]["allosr2"]
    assert columns["psnr_y"]["photos"] == 1 and "niqe" not in columns
    assert 0.0 <= columns["better_than_bicubic"]["psnr_y"] <= 1.0
    assert figures["per_photo"][0]["method"] == "HR" and figures["reference"]["lattice_4"]["value"] > 0


def test_command_measures_made_pictures_of_a_kind(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = command / "drawings" / "test"
    folder.mkdir(parents=True)
    for path, name in (("a.png", "text-0000.png"), ("b.png", "line-0000.png")):
        (command / "photos" / "test" / path).rename(folder / name)
    options = ["--root", str(command), "--methods", "bicubic", "--strength", "mild", "--json", "--drawings"]
    assert evaluation.main([*options, "text"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["drawings"] == "text" and {row["photo"] for row in figures["per_photo"]} == {"text-0000.png"}
    with pytest.raises(AlloSR2Error, match="no drawings of kind 'line' in .*val: run `python -m train drawings`"):
        evaluation.main([*options, "line", "--split", "val"])


@pytest.mark.parametrize("options", [["--methods", "bicubic,nothing"], ["--strength", "hard"], ["--t", "soon"]])
def test_command_refuses_unknown_names(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluation.main(options)
    assert stopped.value.code == 2 and "expected" in capsys.readouterr().err


def test_our_checkpoint_runs_through_the_core_pipeline(root: Path, suite: MetricSuite, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_small_checkpoint(path)
    ours = load_method("allosr2", tmp_path, path)
    photo = load_photo(root / "photos" / "test" / "a.png")
    assert photo is not None
    lr = low_resolution(photo, "mild")
    expected = Pipeline.from_checkpoint(load_checkpoint(path)).upscale(lr.permute(0, 2, 3, 1))
    assert torch.equal(ours.restore(lr), expected.permute(0, 3, 1, 2))
    (_, record) = evaluation.evaluate([photo], ["mild"], [ours], suite, ResultStore(None))
    assert record.values["psnr_y"] > 5.0

    other = load_method("allosr2", tmp_path, path, UpscaleOptions(t=0.1))
    assert other.identity != ours.identity


def test_ours_restores_at_four_times_the_input_or_at_the_size_of_the_result(
    root: Path, suite: MetricSuite, tmp_path: Path
) -> None:
    path = tmp_path / "small.safetensors"
    save_small_checkpoint(path)
    photo, options = load_photo(root / "photos" / "test" / "a.png"), UpscaleOptions(scale=2.0)
    assert photo is not None
    lr = low_resolution(photo, "mild", 2)
    assert lr.shape[2:] == tuple(side // 2 for side in photo.hr.shape[2:])
    names = ("bicubic", "allosr2", "allosr2-at-size")
    methods = [load_method(name, tmp_path, path, options) for name in names]
    assert len({method.identity for method in methods}) == 3
    records = evaluation.evaluate([photo], ["mild"], methods, suite, ResultStore(None), factor=2)
    assert [record.method for record in records[1:]] == list(names)
    whole, own = (method.restore(lr) for method in methods[1:])
    assert whole.shape == own.shape == photo.hr.shape and not torch.equal(whole, own)

    checkpoint = load_checkpoint(path)
    at_two = replace(checkpoint, config=replace(checkpoint.config, scale=2))
    expected = Pipeline.from_checkpoint(at_two).upscale(lr.permute(0, 2, 3, 1), options)
    assert torch.equal(own, expected.permute(0, 3, 1, 2))


def test_command_measures_at_another_factor(
    command: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "load_method", load_method)
    options = ["--root", str(command), "--strength", "mild", "--json", "--factor", "1"]
    assert evaluation.main([*options, "--methods", "bicubic"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["scale"] == 1 and figures["checkpoint"] is None
    with pytest.raises(AlloSR2Error, match="bicubic, allosr2, allosr2-at-size at a factor of 1; got span"):
        evaluation.main([*options, "--methods", "span"])


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match=r"none\.safetensors"):
        load_method("allosr2", tmp_path, tmp_path / "none.safetensors")


def test_peers_load_nothing_before_they_run(tmp_path: Path) -> None:
    identities = {load_method(name, tmp_path).identity for name in METHODS if name != "allosr2"}
    assert len(identities) == len(METHODS) - 1 and not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------------- report


def test_report_uses_means_but_medians_for_the_lattice() -> None:
    assert spread("psnr_y", [20.0, 22.0, 30.0]).value == pytest.approx(24.0)  # type: ignore[union-attr]
    assert spread("lattice_4", [0.1, 0.2, 3.0]).value == pytest.approx(0.2)  # type: ignore[union-attr]
    assert spread("niqe", [float("nan"), 4.0]).photos == 1  # type: ignore[union-attr]
    assert spread("niqe", [float("nan")]) is None


def test_report_is_plain_json_without_nan() -> None:
    values = dict.fromkeys(METRIC_NAMES, 1.0)
    records = [
        Record("a", "", "HR", {"niqe": float("nan"), "lattice_4": 0.1}, float("nan")),
        Record("a", "real", "bicubic", values, 0.1),
        Record("a", "real", "allosr2", values | {"psnr_y": float("inf"), "niqe": float("nan")}, 0.1),
    ]
    figures = without_nan(report(records, {"split": "test"}))
    text = json.dumps(figures, allow_nan=False)
    assert json.loads(text)["summary"]["real"]["allosr2"]["better_than_bicubic"]["psnr_y"] == 1.0
    assert list(summarise(records)["real"]) == ["bicubic", "allosr2"]
    assert table(records).count("\n| ") == 4  # header, two methods, the reference
