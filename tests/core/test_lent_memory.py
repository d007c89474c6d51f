"""The pipeline in the memory of its result gives the picture of the whole, and needs no more than tiles besides."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from allosr2_core import finish, snr
from allosr2_core.checkpoint.format import Checkpoint
from allosr2_core.image import windowed_bicubic as enlarged
from allosr2_core.image.geometry import pad_to, padded_length, resize_bicubic
from allosr2_core.image.windowed_bicubic import Enlarged
from allosr2_core.lent_memory import Receding, lend
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline, step
from allosr2_core.snr import SNRHead, SNRHeadParams
from allosr2_core.start_time import estimate_t
from allosr2_core.tiling.exact import exact_tiles, window_of
from tests.support.parts import decoded, encoded, settled


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(seed))


# ---- the enlargement, window by window ----


class Made(TorchDispatchMode):
    """Lists how many values the tensors have that are made within, views and results in given memory left out."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        lent = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in lent:
                self.sizes.append(x.numel())
        return result


@settings(max_examples=60)
@given(
    old=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    new=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    data=st.data(),
)
def test_windows_are_those_of_the_whole_enlargement(
    old: tuple[int, int], new: tuple[int, int], data: st.DataObject
) -> None:
    image = picture(*old)
    whole = pad_to(resize_bicubic(image, *new), *(padded_length(side, 8, 16) for side in new))
    height, width = whole.shape[1:3]
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, cols = (slice(a, data.draw(st.integers(a + 1, b))) for a, b in ((top, height), (left, width)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enlarged, "KEPT_PIXELS", data.draw(st.sampled_from([0, 10**6])))
        window = Enlarged(image, *new, height, width).window(rows, cols)
    expected = whole[:, rows, cols].movedim(-1, 1) * 2 - 1
    torch.testing.assert_close(window, expected, atol=1e-5, rtol=0)


# ---- maps in the result's memory ----


def test_maps_lie_one_before_the_other_from_the_end() -> None:
    result = torch.zeros(8, 8, 3)  # 192 values
    last, before, too_large = lend(result, [(4, 4, 4), (16, 3, 2), (1, 4, 10)])
    for number, z in enumerate((last, before, too_large), start=1):
        assert z.is_contiguous(memory_format=torch.channels_last)
        z.fill_(float(number))
    assert tuple(before.shape) == (1, 16, 3, 2) and tuple(too_large.shape) == (1, 1, 4, 10)
    values = result.flatten().tolist()
    assert values == [0.0] * 32 + [2.0] * 96 + [1.0] * 64
    assert bool((too_large == 3.0).all())


@settings(max_examples=60)
@given(
    cells=st.tuples(st.integers(1, 12), st.integers(1, 6)),
    step=st.integers(1, 5),
    radius=st.integers(0, 3),
    data=st.data(),
)
def test_a_map_outlives_the_result_that_overwrites_it(
    cells: tuple[int, int], step: int, radius: int, data: st.DataObject
) -> None:
    height, width = cells
    down, channels = 2, data.draw(st.sampled_from([3, 6, 12, 40]))
    result = torch.zeros(height * down, width * down, 3)
    (z,) = lend(result, [(channels, height, width)])
    z.copy_(torch.rand(z.shape))
    truth, source = z.clone(), Receding(z, result, down, radius)
    for first in range(0, height, step):
        needed, last = max(0, first - radius), min(height, first + step + radius)
        for left in range(width):
            rows, cols = slice(needed, last), slice(left, left + 1)
            assert torch.equal(source.window(rows, cols), truth[:, :, rows, cols])
            piece = torch.full((min(step, height - first) * down, down, 3), -1.0)
            source.put(first * down, left * down, piece)
    assert bool((result == -1.0).all())


@pytest.mark.parametrize("size", [(7, 5), (64, 64), (130, 150), (300, 9)])
@torch.no_grad()
def test_the_head_by_tiles(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    head = SNRHead(SNRHeadParams(latent_channels=4, hidden=8, levels=3))
    for parameter in head.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    z = torch.randn(1, 4, *size)
    features, whole = head.features(z), head.log_power(z)
    assert tuple(features.shape[1:]) == head.features_shape(*size) == (8, -(-size[0] // 8), -(-size[1] // 8))
    monkeypatch.setattr(snr, "TILE", 6)
    torch.testing.assert_close(head.log_power_tiled(z), whole, atol=1e-5, rtol=1e-5)
    memory = torch.full_like(features, torch.nan)
    torch.testing.assert_close(head.log_power_tiled(z, memory), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(memory, features, atol=1e-5, rtol=1e-5)
    if max(size) > 100:  # what the tiles see around them is needed
        narrow = exact_tiles(head.features, window_of(z), *features.shape[2:], 1, 1, 1 / 8)
        assert max(float((part - features[:, :, rows, cols]).abs().max()) for rows, cols, part in narrow) > 1e-4
        monkeypatch.setattr(snr, "LAST_RADIUS", 1)
        assert float((head.log_power_tiled(z) - whole).abs().max()) > 1e-4


# ---- the whole pipeline ----


def at_once(upscaler: Pipeline, image: Tensor, scale: float, method: str, tile: int, overlap: int) -> Tensor:
    """What the nodes do, part by part on the whole picture."""
    config, backend = upscaler.config, upscaler.backend
    z_lr, target = encoded(upscaler, image, tile, scale=scale)
    t = estimate_t(z_lr, config, upscaler.head, method).t
    z_hr = step(backend.velocity, z_lr, t, config, 0.8, tile, overlap)
    return settled(decoded(backend, z_hr, config, tile), target, "adain")


@pytest.mark.parametrize("by_window", [False, True])
@pytest.mark.parametrize("method", ["predicted", "calibrated"])
@pytest.mark.parametrize(
    ("size", "scale", "tile", "overlap"),
    [
        ((40, 31), 4.0, 64, 16),
        ((31, 40), 3.3, 48, 24),
        ((70, 9), 2.0, 64, 0),
        ((9, 14), 6.5, 64, 16),
        ((5, 7), 4.0, 0, 64),
        ((20, 20), 0.7, 16, 4),
    ],
)
@torch.no_grad()
def test_a_picture_is_the_nodes_picture(
    monkeypatch: pytest.MonkeyPatch,
    small: Pipeline,
    by_window: bool,
    method: str,
    size: tuple[int, int],
    scale: float,
    tile: int,
    overlap: int,
) -> None:
    if by_window:
        monkeypatch.setattr(enlarged, "KEPT_PIXELS", 0)
    image = picture(*size, channels=4)
    expected = at_once(small, image, scale, method, tile, overlap)
    result = small.upscale(
        image, UpscaleOptions(scale=scale, t=method, realism=0.8, tile=tile, overlap=overlap, color="adain")
    )
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


def test_no_map_has_memory_of_its_own(monkeypatch: pytest.MonkeyPatch, small: Pipeline) -> None:
    """The largest tensor that a tall picture makes anew is no larger than for a short one."""
    monkeypatch.setattr(enlarged, "KEPT_PIXELS", 0)
    monkeypatch.setattr(finish, "BAND", 2**12)  # px; the short picture has ten times as many
    largest: list[int] = []
    for height in (160, 640):
        image = picture(height, 16)
        with Made() as made:
            result = small.upscale(image, UpscaleOptions(tile=64, overlap=16))
        made.sizes.remove(result.numel())
        largest.append(max(made.sizes))
    assert largest[0] == largest[1]


@pytest.fixture
def small(checkpoint: Checkpoint) -> Pipeline:
    return Pipeline.from_checkpoint(checkpoint)
