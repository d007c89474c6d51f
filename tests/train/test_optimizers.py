"""Muon: orthogonal updates for matrices, AdamW's for the rest."""

import pytest
import torch
from torch import nn

from train.loop.optimizers import ITERATIONS, NEWTON_SCHULZ, SMALLEST_SIDE, Muon, orthogonalise, takes


@pytest.mark.parametrize("shape", [(3, 64, 100), (2, 48, 200), (2, 200, 48)])
def test_orthogonalised_matrices_keep_their_directions_and_lose_their_sizes(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrices)
    for before, after in zip(matrices, result, strict=True):
        left, _, right = torch.linalg.svd(before, full_matrices=False)
        sizes = torch.linalg.svdvals(after)
        assert 0.5 < float(sizes.min()) and float(sizes.max()) < 1.35
        # the polar factor of the matrix is the exact answer; the iteration stops near it
        assert float((left @ right * after).sum() / (left @ right).norm() / after.norm()) > 0.97


@pytest.mark.parametrize("shape", [(2, 64, 576), (2, 200, 48)])
@pytest.mark.parametrize("digits", [0, 2, 5])
def test_it_is_the_published_iteration(shape: tuple[int, int, int], digits: int) -> None:
    """Also of matrices whose singular values span several orders of magnitude, as gradients' do."""
    rng = torch.Generator().manual_seed(4)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=rng, dtype=torch.float64), full_matrices=False)
    matrices = left * torch.logspace(0, -digits, min(shape[1:]), dtype=torch.float64) @ right
    x = matrices / matrices.flatten(1).norm(dim=1)[:, None, None]
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        x = a * x + (b * (x @ x.mT) + c * (x @ x.mT) @ (x @ x.mT)) @ x
    assert float((orthogonalise(matrices.float()) - x).abs().max()) < 2e-3 * float(x.abs().max())


def test_a_convolution_is_a_matrix_and_small_layers_are_not_taken() -> None:
    assert takes(nn.Conv2d(64, 64, 3).weight) and takes(nn.Linear(64, 96).weight)
    assert not takes(nn.Conv2d(64, SMALLEST_SIDE - 1, 3).weight) and not takes(nn.Conv2d(3, 64, 3).weight)
    assert not takes(nn.Linear(64, 64).bias)


def test_the_first_step_of_a_convolution_is_the_polar_factor_at_adams_size() -> None:
    weight = nn.Parameter(torch.zeros(64, 48, 3, 3).to(memory_format=torch.channels_last))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    Muon([{"params": [weight]}], lr=0.1).step()
    left, _, right = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
    expected = -0.1 * 0.2 * (48 * 9) ** 0.5 * (left @ right)
    assert float(nn.functional.cosine_similarity(weight.detach().flatten(), expected.flatten(), dim=0)) > 0.97
    # entries of AdamW's usual size: an RMS of about 0.2 lr
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.017, rel=0.2)


def test_other_parameters_are_updated_as_by_adamw() -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 30)) for _ in range(2))
    optimizers = (
        Muon([{"params": [ours]}], lr=0.01),
        torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.0),
    )
    rng = torch.Generator().manual_seed(2)
    for _ in range(5):
        grad = torch.randn(30, generator=rng)
        ours.grad, theirs.grad = grad, grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-7)


def test_it_goes_on_from_its_state_to_the_bit() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 8))

    def train(model: nn.Module, optimizer: Muon, steps: range) -> None:
        for step in steps:
            x = torch.randn(16, 64, generator=torch.Generator().manual_seed(step))
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    whole, first, second = network(), network(), network()
    train(whole, Muon([{"params": list(whole.parameters())}], lr=0.01), range(6))
    optimizer = Muon([{"params": list(first.parameters())}], lr=0.01)
    train(first, optimizer, range(3))
    second.load_state_dict(first.state_dict())
    resumed = Muon([{"params": list(second.parameters())}], lr=0.01)
    resumed.load_state_dict(optimizer.state_dict())
    train(second, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_it_learns_a_linear_map_that_is_badly_scaled() -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(512, 64, generator=rng) * torch.logspace(0, -1.5, 64)
    y = x @ torch.randn(64, 64, generator=rng)
    model = nn.Linear(64, 64, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = Muon([{"params": list(model.parameters())}], lr=0.5)
    before = float(y.square().mean())
    for step in range(150):
        loss = (model(x) - y).square().mean()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * (1 - step / 150)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert float((model(x) - y).square().mean().detach()) < 0.01 * before
