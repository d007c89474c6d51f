"""The tile plan and the feathered blend, for any size, tile and overlap."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allosr2_core.errors import AlloSR2Error
from allosr2_core.tiling.blended import TilePlan, plan_tiles, tile_count, tile_weights, tiled_apply


@st.composite
def tilings(draw: st.DrawFn, most: int = 40) -> tuple[int, int, int, int]:
    """height, width, tile, overlap"""
    tile = draw(st.integers(1, 20))
    return draw(st.integers(1, most)), draw(st.integers(1, most)), tile, draw(st.integers(0, tile - 1))


@given(size=st.integers(1, 500), tile=st.integers(1, 80), data=st.data())
def test_plan_covers_everything_with_full_tiles(size: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    starts = plan_tiles(size, tile, overlap)
    length = min(tile, size)
    assert starts[0] == 0
    assert starts[-1] + length == size
    for start, following in zip(starts, starts[1:], strict=False):
        assert start < following <= start + tile - overlap  # no tile twice, at least the overlap shared
    assert tile < size or starts == (0,)


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "expected"),
    [(1, 1, 0, (0,)), (8, 8, 3, (0,)), (10, 4, 0, (0, 4, 6)), (10, 4, 2, (0, 2, 4, 6)), (9, 8, 0, (0, 1))],
)
def test_plan_by_hand(size: int, tile: int, overlap: int, expected: tuple[int, ...]) -> None:
    assert plan_tiles(size, tile, overlap) == expected


@given(size=st.integers(1, 200), most=st.integers(1, 40), multiple=st.sampled_from([1, 4]), data=st.data())
def test_even_tiles_cover_everything_alike(size: int, most: int, multiple: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, most - 1))
    plan = TilePlan.even(*(multiple * n for n in (size, size, most, overlap)), multiple)
    starts, length = plan.tops, plan.tile_height
    assert starts == plan.lefts and length == plan.tile_width
    assert starts[0] == 0 and starts[-1] + length == multiple * size
    assert length <= multiple * most and not any(n % multiple for n in (*starts, length))
    for start, following in zip(starts, starts[1:], strict=False):
        assert start < following <= start + length - multiple * overlap
    assert len(starts) <= len(plan_tiles(size, min(most, size), overlap if most < size else 0))


def test_even_tiles_save_work() -> None:
    """256 cells in tiles of at most 160: 2 x 2 of 136 cells, where tiles of 128 would be 3 x 3."""
    plan = TilePlan.even(256, 256, 160, 16, 4)
    assert (plan.tops, plan.tile_height, len(plan)) == ((0, 120), 136, 4)
    assert len(TilePlan.make(256, 256, 128, 16)) == 9
    with pytest.raises(AlloSR2Error, match="multiples of 4"):
        TilePlan.even(254, 256, 160, 16, 4)


@pytest.mark.parametrize(("size", "tile", "overlap"), [(0, 4, 0), (8, 0, 0), (8, 4, 4), (8, 4, -1), (2, 4, 4)])
def test_plan_refuses(size: int, tile: int, overlap: int) -> None:
    with pytest.raises(AlloSR2Error, match="expected size"):
        plan_tiles(size, tile, overlap)


@given(size=st.integers(1, 300), tile=st.integers(1, 64), data=st.data())
def test_weights_sum_to_one_and_stay_inside_their_tile(size: int, tile: int, data: st.DataObject) -> None:
    starts = plan_tiles(size, tile, data.draw(st.integers(0, tile - 1)))
    length = min(tile, size)
    weights = tile_weights(starts, length, size)
    assert float((weights.sum(0) - 1).abs().max()) < 1e-12
    assert float(weights.min()) >= 0
    for start, row in zip(starts, weights, strict=True):
        assert float(row[:start].sum() + row[start + length :].sum()) == 0
        assert float(row[start : start + length].min()) > 0


def test_weights_fall_as_a_raised_cosine_over_the_overlap() -> None:
    left, right = tile_weights((0, 4), tile=8, size=12)
    falling = [0.5 + 0.5 * math.cos(math.pi * (i + 0.5) / 4) for i in range(4)]
    assert left.tolist() == pytest.approx([1, 1, 1, 1, *falling, 0, 0, 0, 0])
    assert right.tolist() == pytest.approx(left.tolist()[::-1])


@given(tiling=tilings())
def test_two_dimensional_weights_sum_to_one(tiling: tuple[int, int, int, int]) -> None:
    plan = TilePlan.make(*tiling)
    vertical, horizontal = (w.float() for w in plan.weights())
    total = torch.zeros(plan.height, plan.width)
    for index, box in enumerate(plan):
        row, column = divmod(index, len(plan.lefts))
        total[box.slices] += (vertical[row, :, None] * horizontal[column, None, :])[box.slices]
    assert float((total - 1).abs().max()) < 3e-6  # products of float32 cosines
    assert len(plan) == tile_count(*tiling) == index + 1


@settings(max_examples=60)
@given(tiling=tilings(), batch=st.integers(1, 2))
def test_identity_reproduces_its_input(tiling: tuple[int, int, int, int], batch: int) -> None:
    height, width, tile, overlap = tiling
    x = torch.rand(batch, 3, height, width) * 2 - 1
    assert float((tiled_apply(lambda t: t, x, tile, overlap) - x).abs().max()) <= 1e-6


def weighted_sum(constants: list[float], height: int, width: int, tile: int, overlap: int) -> torch.Tensor:
    """The blend by its definition: sum of weight times tile, in float64."""
    plan = TilePlan.make(height, width, tile, overlap)
    vertical, horizontal = plan.weights()
    total = torch.zeros(height, width, dtype=torch.float64)
    for index, constant in enumerate(constants):
        row, column = divmod(index, len(plan.lefts))
        total += constant * vertical[row, :, None] * horizontal[column, None, :]
    return total


@settings(max_examples=40)
@given(tiling=tilings(most=24), seed=st.integers(0, 99))
def test_the_running_mean_is_the_weighted_sum(tiling: tuple[int, int, int, int], seed: int) -> None:
    constants = torch.rand(tile_count(*tiling), generator=torch.Generator().manual_seed(seed)).tolist()
    remaining = iter(constants)
    result = tiled_apply(lambda t: torch.full_like(t, next(remaining)), torch.zeros(1, 1, *tiling[:2]), *tiling[2:])
    assert float((result[0, 0].double() - weighted_sum(constants, *tiling)).abs().max()) <= 1e-5


@settings(max_examples=40)
@given(tiling=tilings(most=24), scale=st.sampled_from([2, 4]))
def test_nearest_upscale_is_the_same_tiled(tiling: tuple[int, int, int, int], scale: int) -> None:
    height, width, tile, overlap = tiling
    x = torch.rand(1, 2, height, width)

    def up(t: torch.Tensor) -> torch.Tensor:
        return t.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    result = tiled_apply(up, x, tile, overlap, scale_out=scale)
    assert float((result - up(x)).abs().max()) <= 1e-6


def test_downscale_needs_whole_cells() -> None:
    def down(t: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(t, 4)

    x = torch.rand(1, 2, 24, 40)
    assert float((tiled_apply(down, x, 16, 8, scale_out=0.25) - down(x)).abs().max()) <= 1e-6
    with pytest.raises(AlloSR2Error, match="whole"):
        tiled_apply(down, x, 16, 6, scale_out=0.25)


@settings(max_examples=40)
@given(tiling=tilings())
def test_constants_have_no_seams(tiling: tuple[int, int, int, int]) -> None:
    height, width, tile, overlap = tiling
    result = tiled_apply(lambda t: torch.full_like(t, 0.37), torch.rand(1, 1, height, width), tile, overlap)
    assert float(result.max() - result.min()) == 0


def test_tiles_that_disagree_fade_into_each_other() -> None:
    """Each call returns its own constant: across an overlap of n cells no step is larger than pi/2n (the cosine)."""
    values = iter((0.0, 1.0))
    result = tiled_apply(lambda t: torch.full_like(t, next(values)), torch.zeros(1, 1, 1, 24), 16, 8)
    steps = result[0, 0, 0].diff()
    assert 1 / 8 < float(steps.max()) < math.pi / 16
    assert float(steps[7]) < 0.1 * float(steps.max())  # and it begins gently
    assert float(steps.min()) >= 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (16, 16)])
def test_one_tile_equals_the_function(height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width)
    conv = torch.nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        expected = torch.cat([conv(item[None]) for item in x])
        assert torch.equal(tiled_apply(conv, x, tile=16, overlap=4), expected)


def test_result_is_independent_of_the_place_in_the_batch() -> None:
    x = torch.rand(3, 2, 20, 11)
    conv = torch.nn.Conv2d(2, 2, 5, padding=2)
    with torch.no_grad():
        together = tiled_apply(conv, x, 8, 3)
        for i in range(3):
            assert torch.equal(tiled_apply(conv, x[i : i + 1], 8, 3)[0], together[i])


def test_tick_is_called_per_tile_and_can_stop_the_work() -> None:
    calls = []
    x = torch.rand(2, 1, 10, 13)
    tiled_apply(lambda t: t, x, 4, 1, tick=lambda: calls.append(1))
    assert len(calls) == 2 * tile_count(10, 13, 4, 1)

    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        tiled_apply(lambda t: t, x, 4, 1, tick=stop)


def test_half_precision_is_summed_in_float32() -> None:
    x = torch.full((1, 1, 33, 33), 0.1, dtype=torch.bfloat16)
    result = tiled_apply(lambda t: t, x, 8, 7)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, x)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(AlloSR2Error, match=r"expected a tensor \(B, C, H, W\)"):
        tiled_apply(lambda t: t, torch.rand(3, 8, 8), 4, 1)
    with pytest.raises(AlloSR2Error, match="expected a tile of shape"):
        tiled_apply(lambda t: t[..., 1:], torch.rand(1, 3, 8, 8), 4, 1)
    with pytest.raises(AlloSR2Error, match="expected a tile of shape"):
        widths = iter((3, 2))
        tiled_apply(lambda t: t[:, : next(widths)], torch.rand(1, 3, 8, 8), 4, 1)
