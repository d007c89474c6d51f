"""Equality to the bit of what a run keeps."""

from typing import Any

import torch
from torch import Tensor


def assert_equal(one: Any, two: Any, where: str = "") -> None:
    """Nested dicts and lists, tensors equal to the bit; "seconds" is allowed to differ."""
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one.keys() - {"seconds"}:
            assert_equal(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    else:
        assert torch.equal(one, two) if isinstance(one, Tensor) else one == two, where
