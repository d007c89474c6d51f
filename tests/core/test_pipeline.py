"""The pipeline on a random tiny checkpoint: sizes, identities, tiles, refusals. Times: test_timestep.py."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor

from allosr2_core.checkpoint.format import Checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.geometry import resize_bicubic
from allosr2_core.layout import Layout, count_ticks, flow_plan
from allosr2_core.networks.registry import network_params
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline, finish, prepare, step
from tests.support.parts import decoded, encoded, enlarged, settled
from tests.support.small_checkpoint import small_config
from tests.support.tiny_flux import TINY_FLUX

CONFIG = small_config()


def image(height: int, width: int, channels: int = 3, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))


def latents(height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CONFIG.latent_channels, height, width, generator=rng)


# ---- prepare and finish ----


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 31)])
@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 3.3, 4.0, 8.0])
def test_the_target_size_is_exact_and_the_padding_invisible(size: tuple[int, int], scale: float) -> None:
    picture = image(*size)
    target = prepare(picture, CONFIG, scale=scale)
    height, width = (math.floor(side * scale + 0.5) for side in size)
    restored, seen = (4 * size[0], 4 * size[1]), enlarged(target)
    assert (target.layout.height, target.layout.width) == (height, width)
    assert (target.layout.restored_height, target.layout.restored_width) == restored
    assert all(side % 16 == 0 and side >= 64 for side in seen.shape[1:3])
    expected = resize_bicubic(picture, *restored)
    torch.testing.assert_close(seen[:, : restored[0], : restored[1]], expected, atol=1e-6, rtol=0)
    result = settled(seen, target)
    assert result.shape == (1, height, width, 3)
    if scale == 4.0:
        torch.testing.assert_close(result, resize_bicubic(picture, height, width), atol=1e-6, rtol=0)
    if scale == 1.0:
        assert torch.equal(target.source, picture)


@pytest.mark.parametrize(("size", "edge", "expected"), [((30, 40), 101, (76, 101)), ((40, 30), 20, (20, 15))])
def test_a_long_edge_instead_of_a_scale(size: tuple[int, int], edge: int, expected: tuple[int, int]) -> None:
    layout = prepare(image(*size), CONFIG, long_edge=edge).layout
    assert (layout.height, layout.width) == expected
    for options in ({}, {"scale": 2.0, "long_edge": 64}):
        with pytest.raises(AlloSR2Error, match="either a scale or a long edge"):
            prepare(image(*size), CONFIG, **options)


def test_pictures_outside_the_range_are_clamped_before_they_are_encoded() -> None:
    assert float(enlarged(prepare(image(4, 4) * 2 - 0.5, CONFIG, scale=2.0)).min()) == 0.0


def test_finish_matches_colour_to_the_input_and_reattaches_alpha() -> None:
    picture = image(6, 6, channels=4)
    target = prepare(picture, CONFIG, scale=2.0)
    result = settled(enlarged(target) * 0.5, target, "adain")
    assert result.shape == (1, 12, 12, 4)
    assert torch.equal(result[..., 3], resize_bicubic(picture[..., 3:], 12, 12)[..., 0])
    reference = resize_bicubic(target.source, 12, 12)
    torch.testing.assert_close(result[..., :3].mean(dim=(1, 2)), reference.mean(dim=(1, 2)), atol=0.02, rtol=0)


# ---- the whole pipeline ----


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((1, 1), {"scale": 8.0}, (8, 8)),
        ((3, 5), {"scale": 4.0}, (12, 20)),
        ((21, 33), {"scale": 1.0}, (21, 33)),
        ((13, 9), {"scale": 2.5}, (33, 23)),
        ((10, 40), {"scale": None, "long_edge": 150}, (38, 150)),
    ],
)
def test_sizes_and_range(upscaler: Pipeline, size: tuple[int, int], options: dict, expected: tuple[int, int]) -> None:
    result = upscaler.upscale(image(*size), UpscaleOptions(**options))
    assert result.shape == (1, *expected, 3)
    assert result.dtype == torch.float32
    assert 0.0 <= float(result.min()) <= float(result.max()) <= 1.0


def test_grey_and_alpha(upscaler: Pipeline) -> None:
    assert upscaler.upscale(image(5, 7, channels=1)).shape == (1, 20, 28, 3)
    picture = image(5, 7, channels=4)
    picture[..., 3] = 0.25
    result = upscaler.upscale(picture)
    assert result.shape == (1, 20, 28, 4)
    torch.testing.assert_close(result[..., 3], torch.full((1, 20, 28), 0.25))
    assert torch.equal(result[..., :3], upscaler.upscale(picture[..., :3]))


def test_an_image_does_not_depend_on_its_place_in_the_batch(upscaler: Pipeline) -> None:
    batch = image(9, 14, batch=3)
    together = upscaler.upscale(batch)
    assert together.shape == (3, 36, 56, 3)
    for i in (2, 0):
        assert torch.equal(together[i : i + 1], upscaler.upscale(batch[i : i + 1]))
    reversed_batch = upscaler.upscale(batch.flip(0))
    assert torch.equal(reversed_batch.flip(0), together)


def test_the_same_call_gives_the_same_picture(upscaler: Pipeline, checkpoint: Checkpoint) -> None:
    picture = image(9, 14)
    assert torch.equal(upscaler.upscale(picture), upscaler.upscale(picture))
    assert torch.equal(upscaler.upscale(picture), Pipeline.from_checkpoint(checkpoint).upscale(picture))


def test_strength_zero_is_the_prior_with_the_plain_encoder(checkpoint: Checkpoint) -> None:
    picture = image(9, 14)
    full, half, none = (Pipeline.from_checkpoint(checkpoint, s).upscale(picture) for s in (1.0, 0.5, 0.0))
    assert not torch.equal(full, half) and not torch.equal(half, none)


@pytest.mark.parametrize("t", [None, "calibrated", "predicted", 0.1, 0.9])
def test_realism_zero_is_the_encoded_and_decoded_input_at_any_t(upscaler: Pipeline, t: float | str | None) -> None:
    picture = image(9, 14)
    z, target = encoded(upscaler, picture)
    expected = finish(upscaler.backend, CONFIG, z, target)[None]
    assert torch.equal(upscaler.upscale(picture, UpscaleOptions(t=t, realism=0.0)), expected)


def test_latents_reach_the_flow_scaled_and_the_decoder_raw(checkpoint: Checkpoint, upscaler: Pipeline) -> None:
    config = dataclasses.replace(checkpoint.config, latent_scale=2.0, latent_shift=0.5)
    scaled = Pipeline.from_checkpoint(dataclasses.replace(checkpoint, config=config))
    (raw, _), (z, _) = encoded(upscaler, image(16, 16)), encoded(scaled, image(16, 16))
    torch.testing.assert_close(z, (raw - 0.5) * 2.0)
    torch.testing.assert_close(
        decoded(scaled.backend, z, config), decoded(upscaler.backend, raw, CONFIG), atol=1e-5, rtol=1e-5
    )


# ---- the one step ----


def test_realism_scales_the_way_from_the_input(upscaler: Pipeline) -> None:
    z, t, velocity = latents(16, 20), torch.tensor([0.3]), upscaler.backend.velocity
    whole = step(velocity, z, t, CONFIG) - z
    assert float(whole.abs().max()) > 0.01
    assert torch.equal(step(velocity, z, t, CONFIG, realism=0.0), z)
    for r in (0.25, 0.5, 1.5):
        torch.testing.assert_close(step(velocity, z, t, CONFIG, realism=r) - z, r * whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tile", [0, 48])
def test_a_pattern_on_the_grid_is_gone_where_the_grid_is_shifted_too(tile: int) -> None:
    """A network that adds the same to every patch, in whatever picture it sees."""
    assert CONFIG.patch_cells == 2

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        return z + torch.tensor([1.0, -1.0]).repeat(z.shape[3] // 2)

    z, t = latents(24, 32), torch.tensor([0.3])
    clean = step(lambda z, t: z, z, t, CONFIG, tile=tile)
    assert float((step(velocity, z, t, CONFIG, tile=tile) - clean).abs().max()) > 0.2
    torch.testing.assert_close(step(velocity, z, t, CONFIG, tile=tile, shifted=True), clean)


@pytest.mark.parametrize(
    ("network", "cells"),
    [
        (CONFIG.network | {"channels": [8, 8, 8], "blocks": [1, 1, 1]}, 4),
        ({"type": "flux", "latent_channels": 4, **TINY_FLUX}, 2),
        ({"type": "flux2"}, 1),
        ({"type": "sd3.5"}, 2),
    ],
)
def test_patches_of_every_network(network: dict, cells: int) -> None:
    config = copy.copy(CONFIG)
    object.__setattr__(config, "network", network)  # without what else differs in such a checkpoint
    assert config.patch_cells == cells
    z = latents(8, 8)
    if cells == 1:
        with pytest.raises(AlloSR2Error, match="two latent cells or more"):
            step(lambda z, t: z, z, torch.tensor([0.3]), config, shifted=True)


@pytest.mark.parametrize("tile", [16, 48, 64, 100, 4096])
@pytest.mark.parametrize("overlap", [0, 20, 500])
def test_a_pointwise_flow_is_the_same_in_tiles(tile: int, overlap: int) -> None:
    def velocity(z: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(z) * t[:, None, None, None]

    z = latents(28, 40, batch=2)
    t = torch.tensor([0.1, 0.5])
    whole = step(velocity, z, t, CONFIG, tile=4096)
    torch.testing.assert_close(step(velocity, z, t, CONFIG, tile=tile, overlap=overlap), whole)


def test_far_from_the_seams_a_tiled_flow_is_the_untiled_one(upscaler: Pipeline, checkpoint: Checkpoint) -> None:
    radius = network_params(checkpoint.config.network).radius
    cells = 4 * radius
    z, t = latents(cells, 2 * cells), torch.tensor([0.3])
    assert flow_plan(CONFIG, cells, 2 * cells, 4 * cells, 0).lefts == (0, cells)
    whole = step(upscaler.backend.velocity, z, t, CONFIG, tile=4 * 2 * cells)
    tiled = step(upscaler.backend.velocity, z, t, CONFIG, tile=4 * cells, overlap=0)
    differs = ((tiled - whole).abs() > 1e-5).any(dim=1)[0].any(dim=0).nonzero()
    assert 0 < len(differs)
    assert int((differs - cells).abs().max()) <= radius


@pytest.mark.parametrize("tile", [16, 64, 80])
def test_encode_and_decode_are_exact_in_tiles(upscaler: Pipeline, tile: int) -> None:
    picture = image(41, 26)
    z, _ = encoded(upscaler, picture, tile=4096)
    torch.testing.assert_close(encoded(upscaler, picture, tile=tile)[0], z, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        decoded(upscaler.backend, z, CONFIG, tile=tile),
        decoded(upscaler.backend, z, CONFIG, tile=4096),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize(("tile", "overlap"), [(0, 64), (64, 16), (48, 500), (16, 0), (17, 7), (4096, 64)])
@pytest.mark.parametrize("size", [(20, 31), (60, 9), (1, 1)])
def test_every_counted_tick_comes(upscaler: Pipeline, size: tuple[int, int], tile: int, overlap: int) -> None:
    ticks: list[int] = []
    counted = count_ticks(Layout.of(*size, CONFIG, scale=4.0), CONFIG, tile, overlap)
    assert upscaler.ticks(*size, UpscaleOptions(scale=4.0, tile=tile, overlap=overlap)) == sum(counted)
    upscaler.upscale(image(*size, batch=2), UpscaleOptions(tile=tile, overlap=overlap), tick=lambda: ticks.append(1))
    assert len(ticks) == 2 * sum(counted)


def test_an_interrupt_from_a_tick_passes_through(upscaler: Pipeline) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscaler.upscale(image(8, 8), tick=interrupt)


# ---- refusals ----


@pytest.mark.parametrize("realism", [-0.1, math.nan, math.inf])
def test_realism_that_cannot_be(upscaler: Pipeline, realism: float) -> None:
    with pytest.raises(AlloSR2Error, match="expected realism to be a number of 0 to 100"):
        upscaler.upscale(image(4, 4), UpscaleOptions(realism=realism))


@pytest.mark.parametrize(
    "options", [{"tile": -1}, {"overlap": -1}, {"scale": 0.0}, {"scale": math.nan}, {"color": "hsv"}]
)
def test_other_options_that_cannot_be(upscaler: Pipeline, options: dict) -> None:
    with pytest.raises(AlloSR2Error, match="expected"):
        upscaler.upscale(image(4, 4), UpscaleOptions(**options))


@pytest.mark.parametrize("shape", [(1, 8, 8, 2), (8, 8, 3), (0, 8, 8, 3), (1, 0, 8, 3)])
def test_pictures_that_cannot_be(upscaler: Pipeline, shape: tuple[int, ...]) -> None:
    with pytest.raises(AlloSR2Error, match="expected"):
        upscaler.upscale(torch.zeros(shape))


def test_nan_is_refused_where_it_appears(upscaler: Pipeline) -> None:
    picture = image(8, 8)
    picture[0, 3, 4, 1] = math.nan
    with pytest.raises(AlloSR2Error, match="image of finite pixels"):
        upscaler.upscale(picture)

    def broken(z: Tensor, *_: Tensor) -> Tensor:
        return torch.full_like(z, math.inf)

    with pytest.raises(AlloSR2Error, match="flow's output.*bf16 instead of fp16"):
        step(broken, latents(4, 4), torch.tensor([0.2]), CONFIG)
    backend = dataclasses.replace(upscaler.backend, decode=lambda z: torch.full((1, 3, 16, 16), math.nan))
    with pytest.raises(AlloSR2Error, match="decoder's output"):
        decoded(backend, latents(4, 4), CONFIG)
