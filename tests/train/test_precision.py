"""Which precision "auto" stands for."""

import pytest
import torch

from train.loop.precision import bf16_is_native, gemm_flops, mixed_precision


@pytest.fixture(autouse=True)
def _forget() -> None:
    bf16_is_native.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "no"),
        ({"avx512_bf16": True}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ({}, "no"),
    ],
)
def test_auto_is_bf16_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert mixed_precision("auto", "cpu") == expected


def test_a_named_precision_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert [mixed_precision(name, "cpu") for name in ("no", "bf16", "fp16")] == ["no", "bf16", "fp16"]


def test_this_processor_answers() -> None:
    assert bf16_is_native("cpu") in (True, False)
    assert not bf16_is_native("meta")
    assert gemm_flops(torch.float32) > 1e8
