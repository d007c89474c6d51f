"""The adversarial losses on scores whose answer is known, and LDL's map against its definition."""

import math

import pytest
import torch
from torch import Tensor

from allosr2_core.losses.adversarial import (
    ARTIFACT_POWER,
    ARTIFACT_WINDOW,
    adversarial,
    artifact_map,
    artifacts,
    discrimination,
    gradient_ratio,
)


def scores(value: float, side: int = 4) -> Tensor:
    return torch.full((2, 1, side, side), value)


def test_who_cannot_tell_pays_log_two_a_picture() -> None:
    assert float(adversarial([scores(0.0)])["adversarial"]) == pytest.approx(math.log(2))
    terms = discrimination([scores(0.0)], [scores(0.0)])
    assert float(terms["discriminator"]) == pytest.approx(2 * math.log(2))


def test_the_discriminator_wants_photographs_above_zero_and_results_below() -> None:
    right, wrong = discrimination([scores(3.0)], [scores(-2.0)]), discrimination([scores(-2.0)], [scores(3.0)])
    assert float(right["discriminator"]) == pytest.approx(math.log1p(math.exp(-3)) + math.log1p(math.exp(-2)))
    assert float(wrong["discriminator"]) == pytest.approx(math.log1p(math.exp(2)) + math.log1p(math.exp(3)))
    assert (float(right["score_real"]), float(right["score_fake"])) == (3.0, -2.0)


def test_the_generator_is_driven_hardest_where_it_is_found_out() -> None:
    """Non-saturating: the gradient is -sigmoid(-score), near -1 for a result that is told with certainty."""
    fake = torch.tensor([-20.0, 0.0, 20.0]).view(3, 1, 1, 1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(adversarial([fake])["adversarial"] * 3, fake)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([-1.0, -0.5, 0.0]), atol=1e-6, rtol=0.0)


def test_maps_of_all_sizes_count_alike() -> None:
    small, large = scores(2.0, 1), scores(-1.0, 8)
    terms = discrimination([small, large], [small, large])
    assert float(terms["score_real"]) == pytest.approx(0.5)
    mean = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    assert float(adversarial([small, large])["adversarial"]) == pytest.approx(mean)


def test_scores_in_bf16_are_averaged_in_fp32() -> None:
    fake = torch.full((1, 1, 64, 64), 1.0, dtype=torch.bfloat16)
    term = adversarial([fake])["adversarial"]
    assert term.dtype == torch.float32
    assert float(term) == pytest.approx(math.log1p(math.exp(-1)), abs=1e-6)


def test_the_gradient_ratio_is_of_a_part_to_the_rest() -> None:
    part, rest = torch.tensor([3.0, 4.0]), torch.tensor([0.0, -10.0])
    assert float(gradient_ratio(part, part + rest)) == pytest.approx(0.5)
    assert float(gradient_ratio(torch.zeros(2), rest)) == 0.0
    assert math.isfinite(float(gradient_ratio(part, part)))  # nothing else has a gradient


def pictures(seed: int) -> Tensor:
    return torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_artifact_map_is_the_residuals_variance_where_the_averaged_network_is_nearer() -> None:
    hr, result, averaged = pictures(0), pictures(1), pictures(2)
    found = artifact_map(result, averaged, hr)
    assert found.shape == (2, 1, 20, 24)
    residual, other = ((x - hr).abs().sum(dim=1) / 2 for x in (result, averaged))
    half = ARTIFACT_WINDOW // 2
    for sample, row, column in ((0, 10, 12), (1, 5, 20), (1, 13, 3)):
        window = residual[sample, row - half : row + half + 1, column - half : column + half + 1]
        expected = float(window.var() * residual[sample].var() ** ARTIFACT_POWER)
        nearer = bool(other[sample, row, column] <= residual[sample, row, column])
        assert float(found[sample, 0, row, column]) == pytest.approx(expected * nearer, rel=1e-4)
    assert 0.2 < float((found > 0).float().mean()) < 0.8


def test_an_even_residual_is_no_artifact_and_a_dot_is() -> None:
    hr = torch.zeros(1, 3, 32, 32)
    assert float(artifacts(hr + 0.5, hr, hr)["ldl"]) == pytest.approx(0.0, abs=1e-8)
    dot = hr.clone()
    dot[..., 16, 16] = 1.0
    assert float(artifacts(dot, hr, hr)["ldl"]) > 0
    assert float(artifacts(dot, 2 * dot, hr)["ldl"]) == 0.0  # the averaged network paints it too, and brighter


def test_descending_the_charge_moves_the_result_to_the_photograph() -> None:
    hr, averaged = pictures(0), pictures(0)
    result = pictures(1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(artifacts(result, averaged, hr)["ldl"], result)
    assert bool((gradient * (result - hr) >= 0).all()) and bool(gradient.any())
