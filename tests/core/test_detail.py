"""Detail is given back, noise is not."""

import pytest
import torch
from torch import Tensor

from allosr2_core.detail import lost_detail
from allosr2_core.image.geometry import resize_bicubic


def noise(deviation: float, *shape: int) -> Tensor:
    return deviation * torch.randn(shape, generator=torch.Generator().manual_seed(3))


def stripes(height: int, width: int) -> Tensor:
    """[1, H, W, 3]: a smooth left half, stripes in the right."""
    columns = torch.arange(width)
    row = 0.5 + 0.2 * (columns % 4 < 2) * (columns > width // 2)
    return row.float()[None, None, :, None].expand(1, height, width, 3).contiguous()


def test_noise_alike_everywhere_stays_away() -> None:
    """The three quarters above the quiet quantile differ from it by the scatter of a variance of 81 x 3 values only."""
    clean = torch.full((1, 64, 64, 3), 0.5)
    residual = noise(0.03, 1, 64, 64, 3)
    back = lost_detail(clean + residual, clean)
    assert float(back.square().mean() / residual.square().mean()) < 0.05


def test_detail_that_was_smoothed_away_comes_back() -> None:
    """Noise of one level all over, stripes of 50 levels in one half, and a restoration that took both away."""
    clean, flat = stripes(64, 64), torch.full((1, 64, 64, 3), 0.5)
    back = lost_detail(clean + noise(1 / 255, 1, 64, 64, 3), flat)
    torch.testing.assert_close(back[:, :, 40:], (clean - flat)[:, :, 40:], atol=0.02, rtol=0)
    assert float(back[:, :, :24].abs().mean()) < 0.5 / 255


def test_flat_areas_do_not_speak_for_the_noise_elsewhere() -> None:
    clean = torch.full((1, 64, 128, 3), 0.5)
    residual = torch.cat([torch.zeros(1, 64, 96, 3), noise(0.03, 1, 64, 32, 3)], dim=2)
    back = lost_detail(clean + residual, clean)
    assert float(back.square().mean() / residual.square().mean()) < 0.3


def test_an_offset_comes_back_without_the_noise_on_it() -> None:
    clean, offset = torch.full((1, 64, 64, 3), 0.5), torch.zeros(1, 64, 64, 3)
    offset[:, :, 40:] = 0.05
    back = lost_detail(clean + offset + noise(0.01, 1, 64, 64, 3), clean)[:, :, 48:]
    assert abs(float(back.mean()) - 0.05) < 0.002 and float(back.std()) < 0.003


def test_nothing_was_lost() -> None:
    image = stripes(20, 30)
    assert float(lost_detail(image, image).abs().max()) == 0.0


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 7)])
def test_any_size(size: tuple[int, int]) -> None:
    image = noise(0.1, 1, *size, 3) + 0.5
    back = lost_detail(image, resize_bicubic(image, size[0] * 2, size[1] * 3))
    assert back.shape == image.shape and bool(back.isfinite().all())
