"""`python -m train snr`: the measurements are those of the pipeline, and the summary says what they say."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from allosr2_core.checkpoint.format import load_checkpoint
from allosr2_core.flow import t_from_rho
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from tests.support.tiny_training import MeanDistance, write_photos
from train.__main__ import main
from train.data.degradation import degrade
from train.metrics import psnr_y, quantise
from train.studies import start_time as snr
from train.studies.start_time import Measurement, measure_pair, share_of_photos, table


def picture() -> Tensor:
    torch.manual_seed(4)
    return torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), size=(64, 96), mode="bicubic").clamp(0, 1)


def test_quality_is_that_of_the_pipeline_at_the_same_time(checkpoint: Path) -> None:
    loaded, hr = load_checkpoint(checkpoint), quantise(picture())
    upscaler, base = Pipeline.from_checkpoint(loaded), Pipeline.from_checkpoint(loaded, strength=0.0).backend
    lr = degrade(hr, "real", torch.Generator().manual_seed(0))
    rho, t, quality = measure_pair(upscaler, base, lr, hr, MeanDistance().against(hr), (0.5, 1.0))
    for method in ("calibrated", "predicted"):
        sr = quantise(upscaler.upscale(lr.permute(0, 2, 3, 1), UpscaleOptions(t=method)).permute(0, 3, 1, 2))
        assert quality["psnr"][method] == pytest.approx(float(psnr_y(sr, hr)), abs=1e-6)
        assert quality["st_lpips"][method] == pytest.approx(float((sr - hr).abs().mean()), abs=1e-6)
    assert quality["psnr"]["x1"] == quality["psnr"]["paired"]
    paired = loaded.config.clamp_t(t_from_rho(torch.tensor(math.exp(rho["paired"]))))
    assert t["paired"] == pytest.approx(float(paired), abs=1e-6)


def measurement(strength: str, log_rho: float, guess: float, psnr: float) -> Measurement:
    t = {"calibrated": 0.3, "predicted": 0.2 + 0.01 * guess, "paired": 0.2 + 0.01 * log_rho}
    return Measurement("a", strength, log_rho, guess, t, {"paired": psnr, "x1": psnr}, {"paired": 0.1, "x1": 0.1})


def test_the_table_holds_correlation_errors_and_means() -> None:
    found = [
        measurement("mild", 1.0, 1.0, 20.0),
        measurement("mild", 2.0, 3.0, 22.0),
        measurement("real", 3.0, 2.0, 30.0),
    ]
    lines = table(found).splitlines()
    assert lines[2] == "| mild | 2 | 1.000 | 0.005 | 0.005 |"
    assert lines[3].startswith("| real | 1 | nan |")
    assert lines[4] == "| all | 3 | 0.500 | 0.010 | 0.007 |"
    assert lines[6].endswith("(intraclass correlation): nan")  # one photograph
    assert lines[8:11:2] == ["| strength | paired | x1 |", "| mild | 21.00 / 0.100 | 21.00 / 0.100 |"]
    assert lines[-1] == "| all | 24.00 / 0.100 | 24.00 / 0.100 |"


def test_the_share_of_photographs_tells_content_from_degradation() -> None:
    """Two photographs, two strengths: all of the difference between photographs, none of it, and a share by hand."""

    def pairs(*values: float) -> list[Measurement]:
        found = [measurement("mild", value, 0.0, 20.0) for value in values]
        return [dataclasses.replace(m, photo="ab"[i // 2]) for i, m in enumerate(found)]

    assert share_of_photos(pairs(-1.0, -1.0, 2.0, 2.0)) == pytest.approx(1.0)
    assert share_of_photos(pairs(-1.0, 2.0, -1.0, 2.0)) == pytest.approx(-1.0)  # its lower bound for two pairs each
    assert share_of_photos(pairs(0.0, 1.0, 2.0, 3.0)) == pytest.approx((4.0 - 0.5) / (4.0 + 0.5))
    assert math.isnan(share_of_photos(pairs(0.0, 1.0, 2.0)))


def test_the_command(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "x", "val", [(100, 130), (120, 96)])
    monkeypatch.setattr(snr, "load_st_lpips", lambda net, root: MeanDistance())
    out, rows = tmp_path / "out" / "snr.svg", tmp_path / "rows.json"
    root = str(tmp_path / "x" / "data")
    options = ["--root", root, "--checkpoint", str(checkpoint), "--strength", "mild,severe"]
    assert main(["snr", *options, "--out", str(out), "--json", str(rows)]) == 0
    assert capsys.readouterr().out.count("\n| all |") == 2
    assert "<svg" in out.read_text()
    written = json.loads(rows.read_text())
    assert [(row["photo"], row["strength"]) for row in written] == [
        (photo, strength) for photo in ("0.png", "1.png") for strength in ("mild", "severe")
    ]
    assert set(written[0]["psnr"]) == {"calibrated", "predicted", "paired", *(f"x{factor:g}" for factor in snr.FACTORS)}
