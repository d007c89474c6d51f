"""Pixel tensors: alpha split off, sizes computed, resized, padded and cropped."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.geometry import MAX_EDGE, crop, pad_to, padded_length, resize_bicubic, split_alpha, target_size

edges = st.integers(1, 40)


def test_split_alpha() -> None:
    rgba = torch.rand(2, 3, 5, 4)
    rgb, alpha = split_alpha(rgba)
    assert torch.equal(rgb, rgba[..., :3])
    assert alpha is not None
    assert torch.equal(alpha, rgba[..., 3])
    assert split_alpha(rgba[..., :3])[1] is None
    assert split_alpha(rgba[..., :1])[0].shape == (2, 3, 5, 3)
    for bad in (torch.rand(3, 5, 3), torch.rand(1, 3, 5, 2), torch.rand(0, 3, 5, 3)):
        with pytest.raises(AlloSR2Error, match="expected images"):
            split_alpha(bad)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((3, 5), 4, (12, 20)),
        ((1, 1), 1, (1, 1)),
        ((45, 35), 1.7, (77, 60)),  # 76.5 and 59.5: halves go up
        ((5, 15), 1.1, (6, 17)),  # 5.5 and 16.5
        ((101, 67), 2.5, (253, 168)),
        ((1, 3), 0.1, (1, 1)),  # never less than one pixel
    ],
)
def test_target_size_of_a_scale(size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert target_size(*size, scale=scale) == expected


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), edge=st.integers(1, 5000))
def test_target_size_of_a_long_edge(height: int, width: int, edge: int) -> None:
    new_height, new_width = target_size(height, width, long_edge=edge)
    assert max(new_height, new_width) == edge
    exact = min(height, width) * edge / max(height, width)
    assert min(new_height, new_width) == 1 or abs(min(new_height, new_width) - exact) <= 0.5


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"scale": 2.0, "long_edge": 64},
        {"scale": 0.0},
        {"scale": -1.0},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"scale": 1e9},
        {"long_edge": 0},
        {"long_edge": -4},
        {"long_edge": 10.5},
        {"long_edge": MAX_EDGE + 1},
        {"scale": 2000.0},
    ],
)
def test_target_size_refuses(arguments: dict) -> None:
    with pytest.raises(AlloSR2Error, match="expected"):
        target_size(40, 30, **arguments)
    with pytest.raises(AlloSR2Error, match="at least 1x1"):
        target_size(0, 30, scale=1.0)


@settings(max_examples=40)
@given(edges, edges, edges, edges)
def test_resize_any_size_to_any_size(height: int, width: int, new_height: int, new_width: int) -> None:
    pixels = torch.rand(2, height, width, 3)
    resized = resize_bicubic(pixels, new_height, new_width)
    assert resized.shape == (2, new_height, new_width, 3)
    assert 0.0 <= float(resized.min())
    assert float(resized.max()) <= 1.0
    flat = resize_bicubic(torch.full((1, height, width, 3), 0.3), new_height, new_width)
    assert float((flat - 0.3).abs().max()) < 1e-5
    if (height, width) == (new_height, new_width):
        assert torch.equal(resized, pixels)


def test_resize_to_the_same_size_is_the_identity() -> None:
    pixels = torch.rand(1, 7, 9, 3)
    assert torch.equal(resize_bicubic(pixels, 7, 9), pixels)
    with pytest.raises(AlloSR2Error, match="at least 1x1"):
        resize_bicubic(pixels, 0, 9)


@settings(max_examples=80)
@given(height=edges, width=edges, multiple=st.integers(1, 32), minimum=st.integers(0, 70))
def test_pad_then_crop_is_the_identity(height: int, width: int, multiple: int, minimum: int) -> None:
    pixels = torch.rand(1, height, width, 3)
    padded = pad_to(pixels, *(padded_length(edge, multiple, minimum) for edge in (height, width)))
    for old, new in zip((height, width), padded.shape[1:3], strict=True):
        assert new % multiple == 0
        assert new >= max(old, minimum)
        assert new < max(old, minimum) + multiple
    assert torch.equal(crop(padded, height, width), pixels)


@pytest.mark.parametrize(("edge", "multiple"), [(9, 8), (8, 5), (31, 16), (16, 16)])
def test_pad_is_numpy_reflection(edge: int, multiple: int) -> None:
    pixels = np.random.default_rng(0).random((1, edge, edge + 2, 3), dtype=np.float32)
    padded = pad_to(torch.from_numpy(pixels), *(padded_length(side, multiple) for side in (edge, edge + 2)))
    missing = [(0, new - old) for new, old in zip(padded.shape, pixels.shape, strict=True)]
    assert np.array_equal(padded.numpy(), np.pad(pixels, missing, mode="reflect"))


def test_pad_of_one_pixel_and_of_two() -> None:
    assert pad_to(torch.full((1, 1, 1, 3), 0.7), 8, 8).unique().tolist() == [pytest.approx(0.7)]
    row = torch.tensor([0.0, 1.0])[None, None, :, None]
    assert pad_to(row, 8, 8)[0, 0, :, 0].tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    with pytest.raises(AlloSR2Error, match="multiple"):
        padded_length(2, 0)
    with pytest.raises(AlloSR2Error, match="at least 2 px"):
        pad_to(row, 1, 1)


def test_crop_refuses_to_enlarge() -> None:
    for size in ((4, 6), (0, 5), (3, 0)):
        with pytest.raises(AlloSR2Error, match="expected a crop"):
            crop(torch.rand(1, 3, 5, 3), *size)


@pytest.mark.parametrize("size", [(1, 38), (38, 1), (1, 1), (5, 1), (12, 2)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_reduced_to_one_column_has_its_colours(channels: int, size: tuple[int, int]) -> None:
    """However it lies in memory: torch has a fault there."""
    image = torch.rand(2, 127, 41, channels, generator=torch.Generator().manual_seed(0))
    planes = image.movedim(-1, 1).contiguous()
    expected = functional.interpolate(planes.double(), size=size, mode="bicubic", antialias=True).clamp(0, 1)
    for other in (image, planes.movedim(1, -1)):
        torch.testing.assert_close(resize_bicubic(other, *size), expected.movedim(1, -1).float(), atol=1e-6, rtol=0)
