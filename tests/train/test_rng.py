"""Random numbers of a step: the same for the same global batch, however many share it."""

import torch

from train.loop.rng import BatchRandom


def test_parts_share_the_numbers_of_the_whole() -> None:
    whole = BatchRandom.seeded(7)
    parts = [BatchRandom.seeded(7, part=part, parts=3) for part in range(3)]
    for _ in range(2):
        assert torch.equal(whole.rand(6), torch.cat([part.rand(2) for part in parts]))
        assert torch.equal(whole.randn(6, 4, 5), torch.cat([part.randn(2, 4, 5) for part in parts]))
        common = whole.common(2)
        assert all(torch.equal(part.common(2), common) for part in parts)


def test_numbers_depend_on_the_seed_and_are_never_the_same_twice() -> None:
    one, same, other = BatchRandom.seeded(1), BatchRandom.seeded(1), BatchRandom.seeded(2)
    first = one.randn(4, 3)
    assert torch.equal(same.randn(4, 3), first)
    assert not torch.equal(other.randn(4, 3), first)
    assert not torch.equal(one.randn(4, 3), first)


def test_noise_has_the_shape_and_type_of_what_it_is_added_to() -> None:
    noise = BatchRandom.seeded(3).noise_like(torch.zeros(500, 8, 2, 2, dtype=torch.float64))
    assert noise.shape == (500, 8, 2, 2) and noise.dtype == torch.float64
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05


def test_parts_share_the_noise_of_the_whole_wherever_it_is_drawn() -> None:
    z = torch.zeros(6, 4, 5, device="cuda" if torch.cuda.is_available() else "cpu")
    whole = BatchRandom.seeded(7)
    parts = [BatchRandom.seeded(7, part=part, parts=3) for part in range(3)]
    for _ in range(2):
        noise = whole.noise_like(z)
        assert noise.device == z.device
        assert torch.equal(noise, torch.cat([part.noise_like(z[:2]) for part in parts]))
    assert not torch.equal(whole.noise_like(z), noise)
