"""Where the one step starts: the four ways to a time, their limits, what the report says."""

import math

import pytest
import torch
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import t_from_rho
from allosr2_core.options import T_METHODS, UpscaleOptions
from allosr2_core.pipeline import Pipeline, step
from allosr2_core.snr import SNRHead, SNRHeadParams, paired_rho
from allosr2_core.start_time import estimate_t, rebuilt
from tests.support.parts import encoded
from tests.support.small_checkpoint import small_config

CONFIG = small_config()


def image(height: int, width: int, channels: int = 3, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))


def latents(height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CONFIG.latent_channels, height, width, generator=rng)


def test_calibrated_and_manual_times_are_the_same_for_every_image() -> None:
    z = latents(6, 5, batch=2)
    calibrated = estimate_t(z, CONFIG, None, "calibrated")
    assert calibrated.t.tolist() == pytest.approx([0.22, 0.22])
    assert torch.equal(estimate_t(z, CONFIG, None, "manual", manual=0.22).t, calibrated.t)
    assert calibrated.rho.tolist() == pytest.approx([0.22 / 0.78] * 2)
    assert calibrated.map.shape == (2, 6, 5)
    assert "calibrated: t* = 0.220" in calibrated.report


def test_paired_times_come_from_the_distance_to_the_truth() -> None:
    z_hr = latents(6, 5, batch=3)
    rho = torch.tensor([0.3, 0.001, 30.0])
    z_lr = z_hr + rho[:, None, None, None]
    estimate = estimate_t(z_lr, CONFIG, None, "paired", z_hr=z_hr)
    torch.testing.assert_close(estimate.rho, rho, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(estimate.t, torch.tensor([0.3 / 1.3, CONFIG.t_min, CONFIG.t_max]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(estimate.map, rho[:, None, None].expand(3, 6, 5), atol=1e-5, rtol=1e-4)
    power = z_lr.square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(estimate.snr_db, 10 * torch.log10(power / rho.square()), atol=1e-2, rtol=1e-3)
    lines = estimate.report.splitlines()
    assert len(lines) == 4
    assert "clamped" not in lines[0]
    assert "(clamped from 0.001)" in lines[1] and "(clamped from 0.968)" in lines[2]
    assert math.isfinite(float(estimate_t(z_hr, CONFIG, None, "paired", z_hr=z_hr).snr_db[0]))  # rho = 0


def test_predicted_times_are_the_heads_of_each_image_alone(upscaler: Pipeline) -> None:
    z = latents(8, 8, batch=2) * torch.tensor([0.2, 3.0])[:, None, None, None]
    estimate = estimate_t(z, CONFIG, upscaler.head, "predicted")
    for i in range(2):
        expected = t_from_rho(upscaler.head(z[i : i + 1]).exp()).clamp(CONFIG.t_min, CONFIG.t_max)
        torch.testing.assert_close(estimate.t[i : i + 1], expected)
    assert estimate.map.shape == (2, 8, 8)
    torch.testing.assert_close(estimate.map, upscaler.head.local_map(z)[:, 0])


def test_times_outside_the_trained_range_are_limited_in_the_step_too(upscaler: Pipeline) -> None:
    seen: list[float] = []

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t))
        return torch.zeros_like(z)

    for t in (0.001, 0.3, 0.99):
        step(velocity, latents(4, 4), torch.tensor([t]), CONFIG)
    assert seen == pytest.approx([CONFIG.t_min, 0.3, CONFIG.t_max])
    picture = image(8, 8)
    assert torch.equal(
        upscaler.upscale(picture, UpscaleOptions(t=0.95)), upscaler.upscale(picture, UpscaleOptions(t=CONFIG.t_max))
    )


def test_the_checkpoints_method_is_used_when_none_is_chosen(upscaler: Pipeline) -> None:
    picture = image(8, 8)
    assert CONFIG.t_method == "predicted"
    assert torch.equal(upscaler.upscale(picture), upscaler.upscale(picture, UpscaleOptions(t="predicted")))
    assert not torch.equal(upscaler.upscale(picture), upscaler.upscale(picture, UpscaleOptions(t="calibrated")))


def test_the_paired_time_of_a_clean_picture_is_the_least(upscaler: Pipeline) -> None:
    z, _ = encoded(upscaler, image(16, 16))
    assert float(paired_rho(z, z)) == 0.0
    assert float(estimate_t(z, CONFIG, None, "paired", z_hr=z).t) == pytest.approx(CONFIG.t_min)


def test_times_that_cannot_be(upscaler: Pipeline) -> None:
    z = latents(4, 4)
    for manual in (None, 0.0, 1.0, -0.2, math.nan):
        with pytest.raises(AlloSR2Error, match="manual t between 0 and 1"):
            estimate_t(z, CONFIG, None, "manual", manual=manual)
    with pytest.raises(AlloSR2Error, match="reference"):
        estimate_t(z, CONFIG, None, "paired")
    with pytest.raises(AlloSR2Error, match="one shape"):
        estimate_t(z, CONFIG, None, "paired", z_hr=latents(4, 5))
    with pytest.raises(AlloSR2Error, match="SNR head"):
        estimate_t(z, CONFIG, None, "predicted")
    with pytest.raises(AlloSR2Error, match=next(iter(T_METHODS))):
        estimate_t(z, CONFIG, None, "best")
    with pytest.raises(AlloSR2Error, match="one of"):
        upscaler.upscale(image(4, 4), UpscaleOptions(t="best"))
    with pytest.raises(AlloSR2Error, match="one for each of 2 images; got 3"):
        step(upscaler.backend.velocity, latents(4, 4, batch=2), torch.full((3,), 0.2), CONFIG)


def test_the_head_ticks_once_a_tile() -> None:
    """As often as it says beforehand, so that a bar ends at its total; the values are the same."""
    head, ticks = SNRHead(SNRHeadParams(latent_channels=3, hidden=8, levels=2)), []
    z = torch.randn(1, 3, 150, 90, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        counted = head.log_power_tiled(z, tick=lambda: ticks.append(1))
        assert torch.equal(counted, head.log_power_tiled(z))
    assert len(ticks) == head.ticks(150, 90) == 2 * 3 * 2


def test_words_grow_with_the_time() -> None:
    assert [rebuilt(t, 0.5) for t in (0.1, 0.3, 0.5, 0.7)] == ["little", "some", "much", "very much"]
