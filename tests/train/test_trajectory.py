"""`python -m train trajectory`: the results are the pipeline's, and a straight or bent path is told as what it is."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from allosr2_core.checkpoint.format import load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import sr_velocity, t_from_rho
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Backend, Pipeline
from allosr2_core.snr import paired_rho
from tests.support.tiny_training import MeanDistance, write_photos
from train.__main__ import main
from train.data.degradation import degrade
from train.metrics import psnr_y, quantise
from train.studies import trajectory
from train.studies.start_time import encode_pair
from train.studies.trajectory import STEPS, Measurement, header, measure, row


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    small = torch.rand(1, 3, 16, 16)
    hr = quantise(torch.nn.functional.interpolate(small, size=(64, 96), mode="bicubic").clamp(0, 1))
    return degrade(hr, "real", torch.Generator().manual_seed(0)), hr


def parts(checkpoint: Path) -> tuple[Pipeline, Backend]:
    loaded = load_checkpoint(checkpoint)
    return Pipeline.from_checkpoint(loaded), Pipeline.from_checkpoint(loaded, strength=0.0).backend


def test_one_step_is_the_pipelines_result(checkpoint: Path, pair: tuple[Tensor, Tensor]) -> None:
    upscaler, base = parts(checkpoint)
    lr, hr = pair
    found, _ = measure(upscaler, base, lr, hr, MeanDistance().against(hr))
    sr = quantise(upscaler.upscale(lr.permute(0, 2, 3, 1), UpscaleOptions(t="predicted")).permute(0, 3, 1, 2))
    assert found.psnr[1] == pytest.approx(float(psnr_y(sr, hr)), abs=1e-6)
    assert found.st_lpips[1] == pytest.approx(float((sr - hr).abs().mean()), abs=1e-6)


def test_the_true_velocity_is_straight_and_one_that_grows_with_time_is_not(
    checkpoint: Path, pair: tuple[Tensor, Tensor]
) -> None:
    upscaler, base = parts(checkpoint)
    lr, hr = pair
    config = upscaler.config
    _, z_lr, z_hr = encode_pair(upscaler, base, lr, hr)
    t = config.clamp_t(t_from_rho(paired_rho(z_lr, z_hr)))
    u = sr_velocity(z_hr, z_lr, t, config.init)

    def with_velocity(growth: float) -> Measurement:
        def velocity(z_t: Tensor, s: Tensor) -> Tensor:
            return u * (1 + growth * (s / t).reshape(-1, 1, 1, 1))

        bent = dataclasses.replace(upscaler, backend=dataclasses.replace(upscaler.backend, velocity=velocity))
        found, z = measure(bent, base, lr, hr, MeanDistance().against(hr))
        assert torch.equal(z, z_hr)
        return found

    straight, bent = with_velocity(0.0), with_velocity(0.4)
    assert straight.curvature == 0.0
    assert straight.psnr[1] == pytest.approx(straight.psnr[4], abs=1e-4)
    assert bent.curvature == pytest.approx((0.4 * 0.5) ** 2, rel=1e-4)
    assert abs(bent.psnr[1] - bent.psnr[4]) > 0.01


def test_the_table_holds_means() -> None:
    found = [
        Measurement({1: 20.0, 2: 21.0, 4: 22.0}, {1: 0.1, 2: 0.2, 4: 0.3}, 0.5),
        Measurement({1: 22.0, 2: 21.0, 4: 20.0}, {1: 0.3, 2: 0.2, 4: 0.1}, 0.1),
    ]
    assert row("mild", found) == "| mild | 21.00 | 21.00 | 21.00 | 0.2000 | 0.2000 | 0.2000 | 0.300 |"
    assert header()[0].startswith("| strength | PSNR-Y, 1 step | PSNR-Y, 2 steps |")


def test_the_command(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trajectory, "load_st_lpips", lambda net, root: MeanDistance())
    write_photos(tmp_path, "val", [(96, 128), (130, 100), (40, 100)])
    options = ["--root", str(tmp_path / "data"), "--checkpoint", str(checkpoint), "--strength", "mild,severe"]
    assert main(["trajectory", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[2:4]] == ["mild", "severe"]
    assert lines[2].count("|") == 2 * len(STEPS) + 3
    assert lines[-1].startswith("Flow-matching error: ") and "of the untouched prior: " in lines[-1]


def test_a_split_without_usable_photographs_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    write_photos(tmp_path, "val", [(40, 100)])
    with pytest.raises(AlloSR2Error, match="expected photographs of 64 px or more in val; there are none"):
        trajectory.main(["--root", str(tmp_path / "data"), "--checkpoint", str(checkpoint)])
