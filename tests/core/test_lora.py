"""Low-rank branches: exact where they promise it, and refused where they do not fit."""

import copy

import pytest
import torch
from torch import Tensor, nn

from allosr2_core.adapters import lora
from allosr2_core.errors import AlloSR2Error
from tests.support.lora_network import ALL, PREFIX, Small, branches, fill, states_equal


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(5))


def test_a_new_branch_changes_nothing(small: Small, x: Tensor) -> None:
    before, state = small(x), copy.deepcopy(small.state_dict())
    assert lora.inject(small, [r"conv|wide", r"lin.*"], rank=3, alpha=6.0) == ALL
    assert torch.equal(small(x), before)
    assert all(torch.equal(small.state_dict()[key], tensor) for key, tensor in state.items())


def test_the_branch_is_scaled_by_alpha_over_rank() -> None:
    layer = nn.Sequential(nn.Linear(4, 6))
    lora.inject(layer, ["0"], rank=2, alpha=3.0)
    fill(layer)
    branch = branches(layer)["0"]
    given = torch.randn(5, 4)
    want = nn.functional.linear(given, layer[0].weight, layer[0].bias) + 1.5 * (
        given @ branch.down.weight.T @ branch.up.weight.T
    )
    torch.testing.assert_close(layer(given), want)


def test_strength_scales_the_branch(small: Small, x: Tensor) -> None:
    base = small.linear(torch.ones(1, 8))
    lora.inject(small, ["linear"], rank=2, alpha=2.0)
    fill(small)
    full = small.linear(torch.ones(1, 8)) - base
    lora.set_scale(small, 0.25)
    torch.testing.assert_close(small.linear(torch.ones(1, 8)) - base, 0.25 * full)
    with lora.scaled(small, 0.0):
        assert torch.equal(small.linear(torch.ones(1, 8)), base)
    torch.testing.assert_close(small.linear(torch.ones(1, 8)) - base, 0.25 * full)


def test_a_copy_has_its_own_branches(small: Small, x: Tensor) -> None:
    lora.inject(small, ALL, rank=2, alpha=1.0)
    fill(small)
    before = small(x)
    twin = copy.deepcopy(small)
    fill(twin, seed=9)
    assert torch.equal(small(x), before)
    assert not torch.equal(twin(x), before)


def test_only_branches_train(small: Small, x: Tensor) -> None:
    small.requires_grad_(False)
    lora.inject(small, ALL, rank=2, alpha=2.0)
    trained = [p for branch in branches(small).values() for p in branch.parameters()]
    assert {id(p) for p in trained} == {id(p) for p in small.parameters() if p.requires_grad}
    optimiser = torch.optim.SGD(trained, lr=0.1)
    before = small(x).detach()
    small(x).square().mean().backward()
    assert all(p.grad is not None for p in trained)
    optimiser.step()
    assert not torch.equal(small(x), before)


def test_the_same_generator_gives_the_same_branches() -> None:
    made = []
    for _ in range(2):
        network = Small()
        lora.inject(network, ALL, rank=2, alpha=1.0, generator=torch.Generator().manual_seed(4))
        made.append(lora.export_lora(network, ""))
    assert states_equal(*made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("present", [False, True], ids=["into-new", "into-present"])
def test_export_and_import_round_trip_exactly(small: Small, x: Tensor, dtype: torch.dtype, present: bool) -> None:
    other = copy.deepcopy(small)
    lora.inject(small, ALL, rank=3, alpha=0.7, dtype=dtype)
    fill(small)
    tensors = lora.export_lora(small, PREFIX)
    assert sorted(tensors) == sorted(
        f"{PREFIX}{name}.{part}" for name in ALL for part in ("lora_A.weight", "lora_B.weight", "alpha")
    )
    if present:
        lora.inject(other, ALL, rank=3, alpha=5.0, dtype=dtype)
    assert sorted(lora.import_lora(other, tensors, PREFIX)) == sorted(ALL)
    assert states_equal(lora.export_lora(other, PREFIX), tensors)
    assert torch.equal(other(x), small(x))


def test_a_file_without_alpha_means_a_factor_of_one(small: Small) -> None:
    lora.import_lora(
        small, {"linear.lora_A.weight": torch.ones(4, 8), "linear.lora_B.weight": torch.ones(5, 4)}, prefix=""
    )
    assert branches(small)["linear"].factor == 1.0


def good() -> dict[str, Tensor]:
    return {f"{PREFIX}linear.lora_A.weight": torch.ones(4, 8), f"{PREFIX}linear.lora_B.weight": torch.ones(5, 4)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{PREFIX}missing.lora_A.weight": torch.ones(4, 8)}, "fit no layer: diffusion_model.missing.lora_A.weight"),
        ({"linear.lora_A.weight": torch.ones(4, 8)}, "fit no layer: linear.lora_A.weight"),
        ({f"{PREFIX}norm.lora_A.weight": torch.ones(4, 8)}, "fit no layer: diffusion_model.norm.lora_A.weight"),
        ({f"{PREFIX}linear.dora_scale": torch.ones(5)}, "fit no layer: diffusion_model.linear.dora_scale"),
        ({f"{PREFIX}conv.lora_A.weight": torch.ones(2, 3, 3, 3)}, "half a pair: diffusion_model.conv"),
        ({f"{PREFIX}linear.lora_A.weight": torch.ones(4, 7)}, r"expected a half of shape \(4, 8\), got \(4, 7\)"),
        ({f"{PREFIX}linear.lora_B.weight": torch.ones(5, 3)}, r"expected a half of shape \(5, 4\), got \(5, 3\)"),
        ({f"{PREFIX}linear.lora_A.weight": torch.ones(4, 8).int()}, "one float type"),
        ({f"{PREFIX}linear.alpha": torch.ones(2)}, "one finite number"),
        ({f"{PREFIX}linear.alpha": torch.tensor(float("nan"))}, "one finite number"),
    ],
    ids=["foreign", "no-prefix", "not-a-layer", "unknown-kind", "half", "down", "up", "type", "alphas", "nan"],
)
def test_import_refuses_what_does_not_fit_and_changes_nothing(
    small: Small, change: dict[str, Tensor], message: str
) -> None:
    state = copy.deepcopy(small.state_dict())
    with pytest.raises(AlloSR2Error, match=message):
        lora.import_lora(small, good() | change, PREFIX)
    assert states_equal(small.state_dict(), state)


def test_import_refuses_another_rank_and_an_empty_file(small: Small) -> None:
    lora.inject(small, ["linear"], rank=2, alpha=1.0)
    with pytest.raises(AlloSR2Error, match="expected rank 2, got 4"):
        lora.import_lora(small, good(), PREFIX)
    with pytest.raises(AlloSR2Error, match="expected lora_A and lora_B"):
        lora.import_lora(small, {}, PREFIX)


@pytest.mark.parametrize(
    ("targets", "rank", "message"),
    [
        (["linear", "lin"], 2, "expected 'lin' to fit"),
        (["norm"], 2, "expected 'norm' to fit"),
        (["grouped"], 2, "groups 4"),
        (["linear"], 0, "rank >= 1"),
    ],
)
def test_inject_refuses(small: Small, targets: list[str], rank: int, message: str) -> None:
    with pytest.raises(AlloSR2Error, match=message):
        lora.inject(small, targets, rank=rank, alpha=1.0)
    assert not branches(small)


def test_inject_refuses_a_second_branch(small: Small) -> None:
    lora.inject(small, ["linear"], rank=2, alpha=1.0)
    with pytest.raises(AlloSR2Error, match="these have one: linear"):
        lora.inject(small, ALL, rank=2, alpha=1.0)
    with pytest.raises(AlloSR2Error, match="fits none"):
        lora.inject(small, [r"linear\.lora\.down"], rank=1, alpha=1.0)
