"""Weight differences: they give the tuned network back, by their strength, and refuse what does not fit."""

import copy

import pytest
import torch
from torch import Tensor, nn

from allosr2_core.adapters.weight_diff import apply_diff, export_diff
from allosr2_core.errors import AlloSR2Error
from tests.support.lora_network import PREFIX, Small, states_equal, tuned_from


def test_a_difference_gives_the_tuned_network_back(small: Small) -> None:
    tuned = tuned_from(small)
    tensors = export_diff(small, tuned, PREFIX)
    assert {f"{PREFIX}{name}" for name in ("conv.diff", "conv.diff_b", "wide.diff", "gain.diff")} <= tensors.keys()
    assert len(tensors) == len(list(small.parameters()))
    apply_diff(small, tensors, PREFIX)
    assert states_equal(small.state_dict(), tuned.state_dict())


def test_a_difference_applies_by_its_strength(small: Small) -> None:
    tuned, before = tuned_from(small, 0.5), copy.deepcopy(small.state_dict())
    tensors = export_diff(small, tuned, "")
    apply_diff(small, tensors, "", strength=0.5)
    for key, tensor in small.state_dict().items():
        torch.testing.assert_close(tensor, (before[key] + tuned.state_dict()[key]) / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"other.diff": torch.ones(1)}, "fit no parameter: other.diff"),
        ({"linear.weight": torch.ones(5, 8)}, "fit no parameter: linear.weight"),
        ({"linear.diff": torch.ones(5, 7)}, r"linear.diff: expected shape \(5, 8\), got \(5, 7\)"),
    ],
)
def test_apply_diff_refuses_what_does_not_fit(small: Small, change: dict[str, Tensor], message: str) -> None:
    tensors = export_diff(small, tuned_from(small), "")
    state = copy.deepcopy(small.state_dict())
    with pytest.raises(AlloSR2Error, match=message):
        apply_diff(small, tensors | change, "")
    assert states_equal(small.state_dict(), state)


def test_export_diff_refuses_networks_of_different_shape(small: Small) -> None:
    other = copy.deepcopy(small)
    other.linear = nn.Linear(8, 6)
    with pytest.raises(AlloSR2Error, match="these differ: linear.bias, linear.weight"):
        export_diff(small, other, "")
