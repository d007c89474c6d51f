"""Colour matching: what each method transfers, from 1x1 px on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.color import (
    lab_from_rgb,
    low_frequencies,
    match_color,
    rgb_from_lab,
    transfer_moments,
)
from allosr2_core.options import COLOR_METHODS

SIZES = [(1, 1), (1, 5), (3, 5), (17, 9), (40, 33)]


def smooth(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Values well inside 0..1, so that nothing clips."""
    torch.manual_seed(seed)
    return low_frequencies(torch.rand(1, height, width, 3), levels=1) * 0.4 + 0.3


@pytest.mark.parametrize("method", COLOR_METHODS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_own_colours_change_nothing(method: str, height: int, width: int) -> None:
    image = smooth(height, width)
    result = match_color(image, image, method)
    assert result.dtype == torch.float32
    assert float((result - image).abs().max()) < 2e-5


@pytest.mark.parametrize("method", ["wavelet", "adain", "lab"])
def test_a_colour_cast_is_removed(method: str) -> None:
    image = smooth(48, 40)
    cast = image + torch.tensor([0.12, -0.05, 0.08])
    assert float((match_color(cast, image, method) - image).abs().max()) < (0.05 if method == "lab" else 1e-5)


def test_wavelet_keeps_details_and_takes_the_low_band() -> None:
    image, reference = smooth(64, 64, seed=1), smooth(64, 64, seed=2)
    result = match_color(image, reference, "wavelet")
    details = result - low_frequencies(reference)
    assert float((details - (image - low_frequencies(image))).abs().max()) < 1e-6


@pytest.mark.parametrize(("method", "convert"), [("adain", lambda x: x), ("lab", lab_from_rgb)])
def test_moments_are_those_of_the_reference(method: str, convert) -> None:  # noqa: ANN001
    image, reference = smooth(32, 24, seed=1) * 0.8 + 0.1, smooth(32, 24, seed=2)
    result, wanted = convert(match_color(image, reference, method)), convert(reference)
    for moment in (torch.mean, torch.std):
        assert torch.allclose(moment(result, dim=(1, 2)), moment(wanted, dim=(1, 2)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", COLOR_METHODS)
def test_one_pixel_takes_the_references_colour(method: str) -> None:
    image, reference = torch.full((1, 1, 1, 3), 0.2), torch.tensor([0.7, 0.5, 0.3]).reshape(1, 1, 1, 3)
    wanted = image if method == "none" else reference
    assert float((match_color(image, reference, method) - wanted).abs().max()) < 1e-5


@pytest.mark.parametrize("method", COLOR_METHODS)
def test_black_white_and_flat_pictures_stay_finite(method: str) -> None:
    for image_value in (0.0, 0.5, 1.0):
        for reference_value in (0.0, 1.0):
            image = torch.full((1, 4, 6, 3), image_value)
            result = match_color(image, torch.full((1, 4, 6, 3), reference_value), method)
            wanted = image_value if method == "none" else reference_value
            assert float((result - wanted).abs().max()) < 1e-4


@settings(max_examples=40)
@given(
    height=st.integers(1, 33),
    width=st.integers(1, 33),
    method=st.sampled_from(list(COLOR_METHODS)),
    seed=st.integers(0, 99),
)
def test_result_is_a_picture(height: int, width: int, method: str, seed: int) -> None:
    torch.manual_seed(seed)
    image, reference = torch.rand(2, height, width, 3) * 2 - 0.5, torch.rand(1, 5, 7, 3)
    result = match_color(image, reference, method)
    assert result.shape == image.shape
    assert bool(torch.isfinite(result).all())
    assert 0 <= float(result.min())
    assert float(result.max()) <= 1


def test_result_is_independent_of_the_place_in_the_batch() -> None:
    image, reference = torch.rand(3, 12, 9, 3), torch.rand(3, 12, 9, 3)
    for method in COLOR_METHODS:
        together = match_color(image, reference, method)
        alone = match_color(image[1:2], reference[1:2], method)
        assert torch.equal(together[1:2], alone)


@given(seed=st.integers(0, 1000))
@settings(max_examples=30)
def test_lab_round_trip(seed: int) -> None:
    torch.manual_seed(seed)
    rgb = torch.rand(1, 8, 8, 3)
    assert float((rgb_from_lab(lab_from_rgb(rgb)) - rgb).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),  # published values of the sRGB primaries under D65
        ((0.0, 1.0, 0.0), (87.73, -86.18, 83.18)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_of_known_colours(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    assert lab_from_rgb(torch.tensor(rgb).reshape(1, 1, 1, 3)).flatten().tolist() == pytest.approx(lab, abs=0.05)


def test_low_frequencies_of_a_constant_and_of_noise() -> None:
    assert torch.allclose(low_frequencies(torch.full((1, 3, 5, 3), 0.4)), torch.tensor(0.4))
    noise = torch.randn(1, 128, 128, 3)
    assert float(low_frequencies(noise)[:, 32:-32, 32:-32].std()) < 0.05 * float(noise.std())


def test_flat_channel_stays_flat() -> None:
    reference = torch.rand(1, 8, 8, 3)
    result = transfer_moments(torch.full((1, 8, 8, 3), 0.9), reference)
    assert float(result.std(dim=(1, 2)).max()) < 1e-6
    assert torch.allclose(result.mean(dim=(1, 2)), reference.mean(dim=(1, 2)), atol=1e-5)


def test_refusals() -> None:
    image = torch.rand(2, 3, 5, 3)
    with pytest.raises(AlloSR2Error, match="colour method of none, wavelet, adain, lab, got 'hsv'"):
        match_color(image, image, "hsv")
    with pytest.raises(AlloSR2Error, match="expected the image"):
        match_color(torch.rand(1, 3, 5, 4), image, "lab")
    with pytest.raises(AlloSR2Error, match="expected the reference"):
        match_color(image, torch.rand(3, 5, 3), "lab")
    with pytest.raises(AlloSR2Error, match="1 or 2 references"):
        match_color(image, torch.rand(3, 3, 5, 3), "lab")
