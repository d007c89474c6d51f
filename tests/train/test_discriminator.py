"""Discriminators: shapes, spectral norm that only `iterate` moves, what is frozen, and that they learn to tell."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from allosr2_core.errors import AlloSR2Error
from allosr2_core.losses.adversarial import adversarial, discrimination
from train.models.discriminator import (
    Discriminator,
    FeatureDiscriminator,
    SpectralConv2d,
    UNetDiscriminator,
    build_discriminator,
)
from train.perceptual.networks import FeatureNetwork


class TwoLevels(FeatureNetwork):
    """In the place of a published network: features of very different size, at 1 and at 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 7, 2, stride=2)
        self.freeze()

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        fine = self.fine(x_BCHW)
        return [fine, 1000 * self.coarse(fine)]


@pytest.fixture(params=["unet", "features"])
def discriminator(request: pytest.FixtureRequest) -> Discriminator:
    torch.manual_seed(0)
    return UNetDiscriminator(4) if request.param == "unet" else FeatureDiscriminator(TwoLevels(), 4)


def pictures(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_scores_are_maps(discriminator: Discriminator) -> None:
    found = [tuple(scores.shape) for scores in discriminator(discriminator.views(pictures()))]
    assert found == ([(2, 1, 32, 48)] if not discriminator.shifted else [(2, 1, 32, 48), (2, 1, 16, 24)])


def test_the_largest_singular_value_is_divided_out() -> None:
    torch.manual_seed(1)
    conv = SpectralConv2d(6, 5, 3)
    with torch.no_grad():
        conv.weight.mul_(7.0)
    conv.iterate(200)
    largest = torch.linalg.svdvals(conv.normalised().detach().flatten(1))[0]
    assert float(largest) == pytest.approx(1.0, abs=1e-4)


def test_only_iterate_moves_the_singular_vectors(discriminator: Discriminator) -> None:
    """So that passes of one step see one weight, and a resumed run goes on as it would have."""
    before = {name: value.clone() for name, value in discriminator.named_buffers()}
    assert any(name.endswith("left") for name in before)
    for _ in range(2):
        discriminator(discriminator.views(pictures()))
    assert all(torch.equal(value, before[name]) for name, value in discriminator.named_buffers())
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.add_(torch.randn(parameter.shape))
    discriminator.iterate()
    assert not any(torch.equal(value, before[name]) for name, value in discriminator.named_buffers())
    assert {name for name in before if name.endswith("left")} <= discriminator.state_dict().keys()


def test_a_score_depends_on_its_sample_alone(discriminator: Discriminator) -> None:
    """Batches are dealt to processes."""
    whole = discriminator(discriminator.views(pictures()))
    alone = discriminator(discriminator.views(pictures()[:1]))
    for one, both in zip(alone, whole, strict=True):
        torch.testing.assert_close(one, both[:1])


def test_the_size_of_features_does_not_matter() -> None:
    torch.manual_seed(0)
    views = FeatureDiscriminator(TwoLevels(), 4).views(pictures())
    for view in views:
        torch.testing.assert_close(view.square().mean(dim=(1, 2, 3)), torch.ones(2))


def test_a_feature_network_stays_as_it_is_and_hands_on_gradients() -> None:
    torch.manual_seed(0)
    discriminator = FeatureDiscriminator(TwoLevels(), 4)
    x = pictures().requires_grad_(True)
    adversarial(discriminator(discriminator.views(x)))["adversarial"].backward()
    assert x.grad is not None and bool(x.grad.any())
    assert all(parameter.grad is None for parameter in discriminator.network.parameters())
    assert all(parameter.grad is not None for parameter in discriminator.heads.parameters())


def test_it_learns_to_tell_noise_from_its_blur(discriminator: Discriminator) -> None:
    optimizer = torch.optim.Adam([p for p in discriminator.parameters() if p.requires_grad], lr=1e-2)

    def judged(seed: int) -> dict[str, Tensor]:
        real = pictures(seed)
        fake = F.avg_pool2d(real, 3, stride=1, padding=1)
        return discrimination(*(discriminator(discriminator.views(x)) for x in (real, fake)))

    for step in range(40):
        terms = judged(step)
        optimizer.zero_grad()
        terms["discriminator"].backward()
        optimizer.step()
        discriminator.iterate()
    terms = judged(40)
    assert float(terms["score_real"]) > 0 > float(terms["score_fake"])
    assert float(terms["discriminator"].detach()) < 1.2  # 1.39 where it cannot tell


def test_in_bf16_the_scores_are_nearly_the_same(discriminator: Discriminator) -> None:
    discriminator.to(memory_format=torch.channels_last)
    exact = discriminator(discriminator.views(pictures()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = discriminator(discriminator.views(pictures().to(memory_format=torch.channels_last)))
    for one, other in zip(exact, rough, strict=True):
        torch.testing.assert_close(one, other.float(), atol=0.02, rtol=0.0)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match=r"sides of multiples of 8 px; got \(2, 3, 32, 44\)"):
        UNetDiscriminator(4)([pictures()[..., :44]])
    with pytest.raises(AlloSR2Error, match="expected a discriminator of 'unet', 'lite0', 'vgg'; got 'patch'"):
        build_discriminator("patch", 4, tmp_path)
