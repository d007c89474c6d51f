"""The pipeline in bands of rows gives the picture of the whole, and keeps no more than bands."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from allosr2_core import bands, enlarged, upscaler
from allosr2_core.bands import Part, Rows, whole_map
from allosr2_core.checkpoint import Checkpoint
from allosr2_core.enlarged import Enlarged
from allosr2_core.exact_decode import exact_tiled
from allosr2_core.image import pad_to_multiple, resize_bicubic
from allosr2_core.snr import SNRHead, SNRHeadParams
from allosr2_core.upscale import decode, encode, estimate_t, finish, prepare, restore
from allosr2_core.upscaler import Upscaler


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(seed))


# ---- the enlargement, window by window ----


@settings(max_examples=60, deadline=None)
@given(
    old=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    new=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    data=st.data(),
)
def test_windows_are_those_of_the_whole_enlargement(
    old: tuple[int, int], new: tuple[int, int], data: st.DataObject
) -> None:
    image = picture(*old)
    whole = pad_to_multiple(resize_bicubic(image, *new), 8, 16)
    height, width = whole.shape[1:3]
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, cols = (slice(a, data.draw(st.integers(a + 1, b))) for a, b in ((top, height), (left, width)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enlarged, "KEPT_PIXELS", data.draw(st.sampled_from([0, 10**6])))
        window = Enlarged(image, *new, height, width).window(rows, cols)
    expected = whole[:, rows, cols].movedim(-1, 1) * 2 - 1
    torch.testing.assert_close(window, expected, atol=1e-5, rtol=0)


# ---- bands ----


def test_rows_come_when_they_are_asked_for_and_go_when_they_are_let_go() -> None:
    whole = torch.arange(40.0).reshape(1, 1, 10, 4)
    parts = list(whole.split(3, dim=2))
    made = iter(parts)
    rows = Rows(made, 10)
    assert torch.equal(rows.window(slice(0, 2)), whole[:, :, :2])
    assert len(list(made)) == 3  # one part was enough
    rows = Rows(iter(parts), 10)
    assert torch.equal(rows.window(slice(1, 5), slice(1, 3)), whole[:, :, 1:5, 1:3])
    rows.forget(4)
    assert torch.equal(rows.window(slice(4, 99)), whole[:, :, 4:])
    rows.forget(9)
    assert torch.equal(rows.window(slice(9, 10)), whole[:, :, 9:])


@pytest.mark.parametrize("size", [(7, 5), (64, 64), (33, 50), (9, 100)])
@pytest.mark.parametrize("tile", [8, 16, 40])
@torch.no_grad()
def test_the_heads_features_by_tiles(size: tuple[int, int], tile: int) -> None:
    torch.manual_seed(0)
    head = SNRHead(SNRHeadParams(latent_channels=4, hidden=8, levels=3))
    for parameter in head.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    z = torch.randn(1, 4, *size)
    whole = head.features(z)
    assert head.downscale == 8 and tuple(whole.shape[2:]) == tuple(-(-side // 8) for side in size)
    part = Part(head.features, head.radius, 1 / 8)
    tiled = whole_map(part, Rows(iter(z.split(5, dim=2)), size[0]), *size, tile)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)
    if max(size) > 2 * 8 * head.radius:
        too_near = exact_tiled(head.features, z, 1, 1, 1 / 8, ragged=True)
        assert float((too_near - whole).abs().max()) > 1e-4  # the radius is needed


# ---- the whole pipeline ----


def at_once(upscaler: Upscaler, image: Tensor, scale: float, method: str, tile: int, overlap: int) -> Tensor:
    """What the nodes do, part by part on the whole picture."""
    config, backend = upscaler.config, upscaler.backend
    prepared = prepare(image, config, scale=scale)
    z_lr = encode(backend, prepared.pixels, config, tile)
    t = estimate_t(z_lr, config, upscaler.head, method).t
    z_hr = restore(backend.velocity, z_lr, t, config, 0.8, tile, overlap)
    return finish(decode(backend, z_hr, config, tile), prepared, "adain")


@pytest.mark.parametrize("kept_cells", [0, bands.KEPT_CELLS])
@pytest.mark.parametrize("method", ["predicted", "calibrated"])
@pytest.mark.parametrize(
    ("size", "scale", "tile", "overlap"),
    [
        ((40, 31), 4.0, 64, 16),
        ((31, 40), 3.3, 48, 24),
        ((70, 9), 2.0, 64, 0),
        ((5, 7), 4.0, 0, 64),
        ((20, 20), 0.7, 16, 4),
    ],
)
@torch.no_grad()
def test_bands_give_the_picture_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
    small: Upscaler,
    kept_cells: int,
    method: str,
    size: tuple[int, int],
    scale: float,
    tile: int,
    overlap: int,
) -> None:
    monkeypatch.setattr(upscaler, "KEPT_CELLS", kept_cells)
    monkeypatch.setattr(enlarged, "KEPT_PIXELS", 16 * kept_cells)
    image = picture(*size, channels=4)
    expected = at_once(small, image, scale, method, tile, overlap)
    result = small.upscale(image, scale=scale, t=method, realism=0.8, tile=tile, overlap=overlap, color="adain")
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


def test_no_map_is_kept_whole(monkeypatch: pytest.MonkeyPatch, small: Upscaler) -> None:
    """A picture ten times as tall needs bands of the same height."""
    monkeypatch.setattr(upscaler, "KEPT_CELLS", 0)
    highest: dict[int, int] = {}

    class Watched(Rows):
        def window(self, rows: slice, cols: slice = slice(None)) -> Tensor:
            result = super().window(rows, cols)
            highest[self.height] = max(highest.get(self.height, 0), self._parts[0].shape[2])
            return result

    monkeypatch.setattr(upscaler, "Rows", Watched)
    for height in (80, 800):
        small.upscale(picture(height, 8), tile=64, overlap=16)
    radius = small.backend.decoder_radius
    assert radius is not None
    assert highest[80] == highest[800] <= 6 * 16 + 8 * 8  # tiles of 16 cells, the head's context of 8 x 8 at the most


@pytest.fixture
def small(checkpoint: Checkpoint) -> Upscaler:
    return Upscaler.from_checkpoint(checkpoint)
