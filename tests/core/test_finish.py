"""What a result keeps of its input: bounds, grey, masks, hidden colours, and sizes other than the trained factor's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.finish import BAND, BEYOND, RANGE_SIDE, Target, bounds, is_grey, luma, settle
from allosr2_core.image import resample as resample_module
from allosr2_core.image.alpha import fill_hidden
from allosr2_core.image.geometry import resize_bicubic
from allosr2_core.image.resample import Resampled, resample
from allosr2_core.layout import Layout
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline, prepare
from tests.support.parts import settled
from tests.support.small_checkpoint import small_config

CONFIG = small_config()
LEVEL = 1 / 255


def picture(height: int, width: int, channels: int = 3, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))


def target(source: Tensor, scale: float = 4.0, **parts: Tensor | None) -> Target:
    layout = Layout.of(*source.shape[1:3], CONFIG, scale=scale)
    return Target(layout, source, parts.get("alpha"), parts.get("mask"))


@pytest.fixture(scope="module")
def embedded() -> Pipeline:
    return Pipeline.from_checkpoint(load_checkpoint(embedded_path()))


# ---- bounds ----


def test_bounds_are_the_range_of_the_surroundings_and_half_of_it_more() -> None:
    source = picture(23, 17)
    low, high = bounds(source)
    reach = RANGE_SIDE // 2
    for row, column in ((0, 0), (11, 8), (22, 16), (5, 16)):
        window = source[0, max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        least, greatest = window.amin(dim=(0, 1)), window.amax(dim=(0, 1))
        slack = BEYOND * (greatest - least)
        torch.testing.assert_close(low[0, row, column], (least - slack).clamp_min(0.0))
        torch.testing.assert_close(high[0, row, column], (greatest + slack).clamp_max(1.0))


def test_the_bounds_are_those_of_a_picture() -> None:
    low, high = bounds(torch.tensor([0.0, 1.0]).repeat(8)[None, None, :, None].expand(1, 9, 16, 3))
    assert float(low.min()) == 0.0 and float(high.max()) == 1.0


def test_results_within_the_bounds_stay_to_the_bit() -> None:
    source = picture(30, 20)
    result = resize_bicubic(source, 120, 80)[0] * 0.5 + 0.25
    before = result.clone()
    settle(result, target(source), "none")
    assert torch.equal(result, before)


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0, 6.0])
@pytest.mark.parametrize(
    "color", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.9, 0.16, 0.16), (1, 1, 0)], ids=str
)
def test_flat_colours_stay_what_they_are(embedded: Pipeline, color: tuple[float, ...], scale: float) -> None:
    """The network alone is up to 39 levels off at the corners of blue and 5 within."""
    source = torch.tensor(color, dtype=torch.float32).expand(1, 24, 20, 3)
    result = embedded.upscale(source, UpscaleOptions(scale=scale))
    assert float((result - source[0, 0, 0]).abs().max()) <= 0.5 * LEVEL


def test_flat_colours_with_a_little_noise_stay_near(embedded: Pipeline) -> None:
    source = (torch.tensor([0.95, 0.05, 0.05]) + 0.008 * (picture(32, 32) - 0.5)).contiguous()
    result = embedded.upscale(source)
    assert float((result - torch.tensor([0.95, 0.05, 0.05])).abs().max()) <= 0.0081


# ---- grey ----


@pytest.mark.parametrize("options", [{}, {"scale": 2.0}, {"scale": 5.0}, {"color": "lab"}, {"realism": 1.7}], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_in_grey_out(upscaler: Pipeline, options: dict, channels: int) -> None:
    grey = picture(13, 9, channels=1)
    image = grey.expand(1, 13, 9, 3)
    image = {1: grey, 3: image, 4: torch.cat([image, picture(13, 9, channels=1, seed=1)], dim=-1)}[channels]
    assert is_grey(upscaler.upscale(image, UpscaleOptions(**options))[0, ..., :3])


def test_a_picture_with_one_coloured_pixel_is_not_grey(upscaler: Pipeline) -> None:
    image = picture(13, 9, channels=1).repeat(1, 1, 1, 3)
    image[0, 5, 5, 2] += LEVEL
    assert not is_grey(upscaler.upscale(image)[0])


def test_only_the_grey_pictures_of_a_batch_are_made_grey() -> None:
    source = torch.cat([picture(5, 5), picture(5, 5, channels=1).expand(1, 5, 5, 3)])
    pixels = picture(64, 64, batch=2)
    first, second = settled(pixels, target(source))
    assert not is_grey(first) and is_grey(second)


def test_luma_is_pillows_grey() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(rgb).convert("L")).astype(int)
    found = (luma(torch.from_numpy(rgb).float() / 255.0)[..., 0] * 255).round().numpy().astype(int)
    assert np.abs(found - expected).max() <= 1


# ---- masks ----


@pytest.mark.parametrize("scale", [2.0, 4.0, 5.0])
def test_black_keeps_the_plain_enlargement_and_white_takes_the_restored(upscaler: Pipeline, scale: float) -> None:
    image, mask = picture(24, 20), torch.zeros(1, 24, 20)
    mask[:, :, 10:] = 1.0
    plain = resize_bicubic(image, round(24 * scale), round(20 * scale))
    restored, masked = (
        upscaler.upscale(image, UpscaleOptions(scale=scale)),
        upscaler.upscale(image, UpscaleOptions(scale=scale), mask=mask),
    )
    assert float((restored - plain).abs().max()) > 0.05
    edge, feather = round(10 * scale), round(scale / 2) + 1
    torch.testing.assert_close(masked[:, :, : edge - feather], plain[:, :, : edge - feather], atol=2e-6, rtol=0)
    assert torch.equal(masked[:, :, edge + feather :], restored[:, :, edge + feather :])
    half = upscaler.upscale(image, UpscaleOptions(scale=scale), mask=torch.full((1, 24, 20), 0.5))
    torch.testing.assert_close(half, (plain + restored) / 2, atol=2e-6, rtol=0)


def test_a_mask_of_the_results_size_has_sharp_edges(upscaler: Pipeline) -> None:
    image, mask = picture(12, 12), torch.zeros(1, 48, 48)
    mask[:, :, 21:] = 1.0
    masked, restored = upscaler.upscale(image, mask=mask), upscaler.upscale(image)
    assert torch.equal(masked[:, :, 21:], restored[:, :, 21:])
    torch.testing.assert_close(masked[:, :, :21], resize_bicubic(image, 48, 48)[:, :, :21], atol=2e-6, rtol=0)


def test_one_mask_for_a_batch_or_one_each(upscaler: Pipeline) -> None:
    image = picture(8, 8, batch=2)
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    each = upscaler.upscale(image, mask=masks)
    assert torch.equal(each[1], upscaler.upscale(image)[1])
    torch.testing.assert_close(each[0], resize_bicubic(image, 32, 32)[0], atol=2e-6, rtol=0)
    assert torch.equal(upscaler.upscale(image, mask=masks[1:]), upscaler.upscale(image))


def test_a_mask_of_an_input_that_is_reduced(upscaler: Pipeline) -> None:
    image = picture(40, 40)
    result = upscaler.upscale(image, UpscaleOptions(scale=0.5), mask=torch.zeros(1, 40, 40))
    torch.testing.assert_close(result, resize_bicubic(image, 20, 20), atol=2e-6, rtol=0)


@pytest.mark.parametrize("mask", [torch.zeros(1, 8, 9), torch.zeros(3, 8, 8), torch.zeros(8, 8)], ids=str)
def test_masks_of_other_shapes_are_refused(mask: Tensor) -> None:
    with pytest.raises(AlloSR2Error, match=r"expected a mask of shape \(1 or 2, H, W\) with the input's 8x8 px"):
        prepare(picture(8, 8, batch=2), CONFIG, scale=4.0, mask=mask)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_masks_outside_the_range_are_refused(value: float) -> None:
    with pytest.raises(AlloSR2Error, match="mask values in 0..1"):
        prepare(picture(8, 8), CONFIG, scale=4.0, mask=torch.full((1, 8, 8), value))


# ---- hidden colours ----


def disc(hidden: tuple[float, float, float], soft: bool) -> Tensor:
    """A red disc [1, 64, 64, 4] with another colour where it is fully transparent."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    inside = 21.0 - torch.hypot(columns - 31.5, rows - 31.5)
    alpha = (inside + 0.5).clamp(0, 1) if soft else (inside > 0).float()
    red = torch.tensor([230.0, 40.0, 40.0]) / 255
    rgb = torch.where((alpha > 0)[..., None], red, torch.tensor(hidden))
    return torch.cat([rgb, alpha[..., None]], dim=-1)[None]


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("hidden", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 1.0, 0.0)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_hidden_colours_leave_no_fringe(
    embedded: Pipeline, hidden: tuple[float, float, float], soft: bool, scale: float
) -> None:
    result = embedded.upscale(disc(hidden, soft), UpscaleOptions(scale=scale))[0]
    alpha, red = result[..., 3:], torch.tensor([230.0, 40.0, 40.0]) / 255
    for paper in (0.0, 0.5, 1.0):
        shown, wanted = (alpha * color + (1 - alpha) * paper for color in (result[..., :3], red))
        assert float((shown - wanted).abs().max()) <= 2 * LEVEL


def test_visible_colours_stay_and_hidden_ones_are_those_of_the_nearest_edge() -> None:
    image = picture(20, 30)
    alpha = torch.zeros(1, 20, 30)
    alpha[:, :, :10] = 1.0
    alpha[:, :, 9] = 1 / 255
    image[:, :, 10:] = 7.0
    filled = fill_hidden(image, alpha)
    assert torch.equal(filled[:, :, :10], image[:, :, :10])
    assert 0.0 <= float(filled.min()) and float(filled.max()) <= 1.0
    two = torch.zeros(1, 8, 16, 3)
    two[:, :, :2], two[:, :, 14:] = 0.2, 0.9
    edges = torch.zeros(1, 8, 16)
    edges[:, :, :2] = edges[:, :, 14:] = 1.0
    assert fill_hidden(two, edges)[0, 4, [2, 13], 0].tolist() == pytest.approx([0.2, 0.9])


def test_pictures_without_anything_to_fill_from_or_in_stay() -> None:
    image = picture(6, 5, batch=3)
    alpha = torch.stack([torch.zeros(6, 5), torch.ones(6, 5), torch.zeros(6, 5)])
    alpha[2, 3, 3] = 1.0
    filled = fill_hidden(image, alpha)
    assert torch.equal(filled[:2], image[:2])
    assert torch.equal(filled[2], image[2, 3, 3].expand(6, 5, 3))


# ---- other factors ----


@settings(max_examples=60)
@given(
    old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    new=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    block=st.integers(1, 17),
)
def test_pieces_give_the_whole(old: tuple[int, int], new: tuple[int, int], block: int) -> None:
    image = picture(*old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample_module, "BLOCK", block)
        pieces = resample(image, *new)
        patch.setattr(resample_module, "BLOCK", 10**6)
        torch.testing.assert_close(pieces, resample(image, *new), atol=1e-5, rtol=0)
    flat = resample(torch.full((1, *old, 3), 0.3), *new)
    assert float((flat - 0.3).abs().max()) < 1e-5


@pytest.mark.parametrize("new", [(30, 20), (15, 10), (41, 33), (60, 40), (90, 77), (7, 3)])
def test_resampling_is_pillows_bicubic(new: tuple[int, int]) -> None:
    image = picture(60, 40)
    channels = [Image.fromarray(image[0, ..., c].numpy()) for c in range(3)]
    expected = np.stack([np.asarray(c.resize(new[::-1], Image.Resampling.BICUBIC)) for c in channels], axis=-1)
    found = resample(image, *new)[0].numpy()
    assert np.abs(found - expected.clip(0, 1)).max() < 2e-5


def test_the_sink_needs_every_piece_once() -> None:
    image, result = picture(16, 16)[0], torch.full((8, 8, 3), torch.nan)
    sink = Resampled(result, 16, 16)
    for top, left in ((8, 8), (0, 0), (8, 0), (0, 8)):  # any order
        sink.put(top, left, image[top : top + 8, left : left + 8])
    torch.testing.assert_close(result.clamp(0, 1), resample(image[None], 8, 8)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 1.37, 2.0, 3.0, 6.0, 8.0])
def test_other_factors_are_made_of_the_trained_one(upscaler: Pipeline, scale: float) -> None:
    image = picture(19, 14)
    whole, result = upscaler.upscale(image), upscaler.upscale(image, UpscaleOptions(scale=scale))
    layout = Layout.of(19, 14, CONFIG, scale=scale)
    expected = resample(whole, layout.height, layout.width)[0]
    settle(expected, target(image, scale=scale), "none")
    # The restored picture was limited before it was resampled here, and only after it there.
    assert float((result[0] - expected).abs().mean()) < 0.01


def test_results_change_little_between_factors_next_to_each_other(embedded: Pipeline) -> None:
    """At the trained factor nothing is given back, just below it next to nothing."""
    image = resize_bicubic(picture(12, 12), 40, 40)
    at = {
        scale: resize_bicubic(embedded.upscale(image, UpscaleOptions(scale=scale)), 120, 120)
        for scale in (3.9, 3.97, 4.0, 4.03)
    }
    for low, high in ((3.9, 3.97), (3.97, 4.0), (4.0, 4.03)):
        assert float((at[low] - at[high]).abs().mean()) < 1.0 * LEVEL
    assert Layout.of(40, 40, CONFIG, scale=2.0).detail == 1.0 and Layout.of(40, 40, CONFIG, scale=4.0).detail == 0.0


def test_a_smaller_result_than_the_input_restores_no_more_than_it_shows() -> None:
    layout = Layout.of(400, 300, CONFIG, scale=0.5)
    assert (layout.source_height, layout.source_width) == (layout.height, layout.width) == (200, 150)
    assert (layout.restored_height, layout.restored_width) == (800, 600)
    edge = Layout.of(400, 300, CONFIG, long_edge=100)
    assert (edge.source_height, edge.source_width) == (100, 75)


def test_every_band_ticks() -> None:
    """A place to stop in large pictures."""
    width = 512
    layout, ticks = Layout.plain(height := BAND // width + 1, width), []
    target = Target(layout, torch.rand(1, height, width, 3), None, None)
    settle(torch.rand(height, width, 3), target, "none", lambda: ticks.append(1))
    assert len(ticks) == 2
