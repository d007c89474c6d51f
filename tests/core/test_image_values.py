"""Which tensors are pictures, and what comes back for them."""

import pytest
import torch

from allosr2_core.errors import AlloSR2Error
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline, prepare


def image(channels: int = 3, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 9, 14, channels, generator=torch.Generator().manual_seed(channels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_floating_point_type_is_a_picture(upscaler: Pipeline, dtype: torch.dtype, channels: int) -> None:
    given = image(channels).to(dtype)
    mask = torch.rand(1, 9, 14).to(dtype)
    result = upscaler.upscale(given, UpscaleOptions(scale=2.0), mask=mask)
    assert result.dtype == torch.float32
    assert torch.equal(result, upscaler.upscale(given.float(), UpscaleOptions(scale=2.0), mask=mask.float()))


@pytest.mark.parametrize("scale", [2.0, 4.0])
def test_a_result_is_an_ordinary_tensor(upscaler: Pipeline, scale: float) -> None:
    """Others may train on it."""
    result = upscaler.upscale(image(), UpscaleOptions(scale=scale))
    assert not result.is_inference() and not result.requires_grad
    weight = torch.ones(3, requires_grad=True)
    (result * weight).square().sum().backward()
    assert weight.grad is not None and bool(torch.isfinite(weight.grad).all())
    result.add_(1.0)


def test_strides_and_what_is_given_make_no_difference(upscaler: Pipeline) -> None:
    given = image(batch=2)
    before = given.clone()
    result = upscaler.upscale(given)
    planes = given.movedim(-1, 1).contiguous().movedim(1, -1)
    wider = torch.rand(2, 18, 28, 6)
    wider[:, ::2, ::2, ::2] = given
    for other in (planes, wider[:, ::2, ::2, ::2], given.flip(0).flip(0), given.clone().requires_grad_()):
        assert torch.equal(upscaler.upscale(other), result)
    assert torch.equal(given, before)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-5.0, r"expected an image of values in 0\.\.1; got -5"),
        (1e38, r"expected an image of values in 0\.\.1; got .*\.\.1e\+38: divide"),
        (255.0, r"\.\.255: divide by what is white in it"),
        (float("nan"), "NaN or infinite"),
        (float("inf"), "NaN or infinite"),
    ],
)
@pytest.mark.parametrize("channel", [0, 3])
def test_values_with_another_meaning_are_refused(upscaler: Pipeline, value: float, message: str, channel: int) -> None:
    given = image(4)
    given[0, 3, 4, channel] = value
    for refuse in (upscaler.upscale, upscaler.predict_t, lambda x: prepare(x, upscaler.config, scale=4.0)):
        with pytest.raises(AlloSR2Error, match=message):
            refuse(given)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool], ids=str)
def test_whole_numbers_are_refused(upscaler: Pipeline, dtype: torch.dtype) -> None:
    with pytest.raises(AlloSR2Error, match=f"floating-point values in 0..1; got {dtype}: divide by 255"):
        upscaler.upscale((image() * 255).to(dtype))


@pytest.mark.parametrize("shape", [(0, 9, 14, 3), (1, 0, 14, 3), (1, 9, 14, 2), (1, 9, 14, 5), (9, 14, 3), (3,), ()])
def test_other_shapes_are_refused(upscaler: Pipeline, shape: tuple[int, ...]) -> None:
    with pytest.raises(AlloSR2Error, match=r"expected images \(B, H, W, 1, 3 or 4\), got"):
        upscaler.upscale(torch.zeros(shape))


def test_what_resizing_left_beside_the_range_is_the_nearest_value_inside(upscaler: Pipeline) -> None:
    given = image() * 1.4 - 0.2
    assert torch.equal(upscaler.upscale(given), upscaler.upscale(given.clamp(0.0, 1.0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (UpscaleOptions(realism=1e39), "expected realism to be a number of 0 to 100; got 1e"),
        (UpscaleOptions(realism=float("nan")), "expected realism"),
        (UpscaleOptions(t=1.5), "expected t to be a number between 0 and 1"),
        (UpscaleOptions(t="paired"), "expected t to be a number between 0 and 1 or to be one of predicted, calibrated"),
        (UpscaleOptions(tile=-1), "expected tile"),
        (UpscaleOptions(overlap=-1), "expected overlap"),
        (UpscaleOptions(scale=1e308), "expected a scale of at most 65535"),
        (UpscaleOptions(scale=60000.0), "expected at most 65535 px an edge"),
        (UpscaleOptions(long_edge=10**30), "expected at most 65535 px an edge"),
        (UpscaleOptions(color="hsv"), "expected color to be one of none, wavelet"),
    ],
    ids=str,
)
def test_options_out_of_their_range_are_refused_before_any_work(
    upscaler: Pipeline, options: UpscaleOptions, message: str
) -> None:
    def tick() -> None:
        raise AssertionError("worked on it")

    with pytest.raises(AlloSR2Error, match=message):
        upscaler.upscale(image(), options, tick=tick)


@pytest.mark.parametrize("scale", [0.3, 2.0, 4.0, 5.7])
def test_tiles_that_lie_in_the_padding_as_a_whole(upscaler: Pipeline, scale: float) -> None:
    """A picture of 20 x 28 px is restored as one of 64 x 64, in tiles of 16."""
    given = image()[:, :5, :7]
    small = upscaler.upscale(given, UpscaleOptions(scale=scale, tile=1, realism=0.0, t=0.2))
    whole = upscaler.upscale(given, UpscaleOptions(scale=scale, tile=64, realism=0.0, t=0.2))
    torch.testing.assert_close(small, whole, atol=1e-5, rtol=0)
