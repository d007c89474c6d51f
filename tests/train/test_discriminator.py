"""Discriminators: shapes, spectral norm that only `iterate` moves, what is frozen, and that they learn to tell."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from allosr2_core.errors import AlloSR2Error
from allosr2_core.losses.adversarial import adversarial, discrimination
from allosr2_core.networks.registry import VelocityNetwork, build_network
from train.loop.rng import BatchRandom
from train.models.discriminator import (
    Discriminator,
    PictureFeatureDiscriminator,
    Prior,
    PriorDiscriminator,
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


def tiny_prior() -> VelocityNetwork:
    """A U-Net of two levels on three channels, whose blocks are no identities."""
    torch.manual_seed(2)
    params = {"latent_channels": 3, "channels": [4, 6], "blocks": [1, 1], "time_dim": 8, "preconditioned": True}
    network = build_network({"type": "unet", **params}).requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return network


KINDS: dict[str, Callable[[], Discriminator]] = {
    "unet": lambda: UNetDiscriminator(4),
    "features": lambda: PictureFeatureDiscriminator(TwoLevels(), 4),
    "prior": lambda: PriorDiscriminator(Prior(tiny_prior(), 3, (0.05, 0.3)), 4),
}


@pytest.fixture(params=KINDS)
def discriminator(request: pytest.FixtureRequest) -> Discriminator:
    torch.manual_seed(0)
    return KINDS[request.param]()


def views_of(discriminator: Discriminator, x: Tensor, seed: int = 0) -> list[Tensor]:
    """What is seen of results; the same pictures stand for photographs, and must look the same."""
    fake, real = discriminator.views(x, x, BatchRandom.seeded(seed))
    assert all(torch.equal(one, other) for one, other in zip(fake, real, strict=True))
    return fake


def pictures(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_scores_are_maps(discriminator: Discriminator) -> None:
    views = views_of(discriminator, pictures())
    found = [tuple(scores.shape) for scores in discriminator(views)]
    assert found == [(2, 1, *view.shape[-2:]) for view in views]
    assert len(found) in (1, 2, 3)  # the U-Net; two levels; down and up again


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
        discriminator(views_of(discriminator, pictures()))
    assert all(torch.equal(value, before[name]) for name, value in discriminator.named_buffers())
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.add_(torch.randn(parameter.shape))
    discriminator.iterate()
    assert not any(torch.equal(value, before[name]) for name, value in discriminator.named_buffers())
    assert {name for name in before if name.endswith("left")} <= discriminator.state_dict().keys()


def test_a_score_depends_on_its_sample_alone(discriminator: Discriminator) -> None:
    """Batches are dealt to processes."""
    x = pictures()
    whole, second = (
        discriminator(discriminator.views(part, part, BatchRandom.seeded(0, *place))[0])
        for part, place in ((x, (0, 1)), (x[1:], (1, 2)))
    )
    for one, both in zip(second, whole, strict=True):
        torch.testing.assert_close(one, both[1:], atol=1e-5, rtol=1e-4)


def test_the_size_of_features_does_not_matter() -> None:
    torch.manual_seed(0)
    for view in views_of(PictureFeatureDiscriminator(TwoLevels(), 4), pictures()):
        torch.testing.assert_close(view.square().mean(dim=(1, 2, 3)), torch.ones(2))


@pytest.mark.parametrize("kind", ["features", "prior"])
def test_a_frozen_network_stays_as_it_is_and_hands_on_gradients(kind: str) -> None:
    torch.manual_seed(0)
    discriminator = KINDS[kind]()
    x = pictures().requires_grad_(True)
    adversarial(discriminator(views_of(discriminator, x)))["adversarial"].backward()
    assert x.grad is not None and bool(x.grad.any())
    moved = {name.split(".")[0] for name, parameter in discriminator.named_parameters() if parameter.grad is not None}
    assert moved == {"heads"}
    assert all(parameter.grad is not None for parameter in discriminator.heads.parameters())


def test_what_is_random_differs_between_steps_and_not_between_both_sides() -> None:
    """`views_of` compares the sides. The U-Net has nothing random."""
    for kind, seen in KINDS.items():
        torch.manual_seed(0)
        discriminator = seen()
        first, second = (views_of(discriminator, pictures(), seed)[0] for seed in (1, 2))
        assert torch.equal(first, second) == (kind == "unet")


def test_the_prior_sees_noise_at_its_time() -> None:
    prior, x, random = tiny_prior(), pictures(), BatchRandom.seeded(3)
    discriminator = PriorDiscriminator(Prior(prior, 3, (0.2, 0.2)), 4)
    found = discriminator.views(x, pictures(1), random)[0]
    random = BatchRandom.seeded(3)
    random.rand(2)  # the times, which are all 0.2
    noised = 0.8 * x + 0.2 * random.noise_like(x)
    for view, feature in zip(found, prior.features(noised, torch.full((2,), 0.2)), strict=True):
        torch.testing.assert_close(view, feature / feature.square().mean(dim=(1, 2, 3), keepdim=True).sqrt())


def test_it_learns_to_tell_noise_from_its_blur(discriminator: Discriminator) -> None:
    optimizer = torch.optim.Adam([p for p in discriminator.parameters() if p.requires_grad], lr=1e-2)

    def judged(seed: int) -> dict[str, Tensor]:
        real = pictures(seed)
        fake = F.avg_pool2d(real, 3, stride=1, padding=1)
        seen, photographs = discriminator.views(fake, real, BatchRandom.seeded(seed))
        return discrimination(discriminator(photographs), discriminator(seen))

    for step in range(100):
        terms = judged(step)
        optimizer.zero_grad()
        terms["discriminator"].backward()
        optimizer.step()
        discriminator.iterate()
    terms = judged(100)
    assert float(terms["score_real"]) > 0 > float(terms["score_fake"])
    assert float(terms["discriminator"].detach()) < 1.2  # 1.39 where it cannot tell


def test_in_bf16_the_scores_are_nearly_the_same(discriminator: Discriminator) -> None:
    discriminator.to(memory_format=torch.channels_last)
    exact = discriminator(views_of(discriminator, pictures()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = discriminator(views_of(discriminator, pictures().to(memory_format=torch.channels_last)))
    for one, other in zip(exact, rough, strict=True):
        torch.testing.assert_close(one, other.float(), atol=0.02, rtol=0.0)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match=r"sides of multiples of 8 px; got \(2, 3, 32, 44\)"):
        UNetDiscriminator(4)([pictures()[..., :44]])
    prior = Prior(VelocityNetwork(), 3, (0.1, 0.2))
    with pytest.raises(AlloSR2Error, match="expected a discriminator of 'unet', 'lite0', 'vgg', 'prior'; got 'patch'"):
        build_discriminator("patch", 4, tmp_path, lambda: prior)
    with pytest.raises(AlloSR2Error, match="expected a network that shows its features; VelocityNetwork does not"):
        build_discriminator("prior", 4, tmp_path, lambda: prior)
