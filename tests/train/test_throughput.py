"""`python -m train throughput`: figures with the machine's instructions, and with what bounds them."""

import json
import time
from pathlib import Path

import pytest
import torch

from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_photos
from train.__main__ import main
from train.loop.precision import instruction_set
from train.studies.throughput import Beside, bounds


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "avx512_f": True, "avx2": True}, "AMX"),
        ({"amx_bf16": False, "avx512_bf16": True, "avx512_f": True, "avx2": True}, "AVX512-BF16"),
        ({"avx512_f": True, "avx2": True}, "AVX512"),
        ({"avx2": True, "avx512_f": False}, "AVX2"),
        ({"architecture": "riscv64"}, "riscv64"),
        ({}, "none known"),
    ],
)
def test_the_fastest_instructions_are_named(has: dict[str, object], expected: str) -> None:
    assert instruction_set(has) == expected


def test_torch_knows_the_flags_of_a_pc() -> None:
    has = torch.cpu.get_capabilities()
    if has.get("architecture") == "x86_64":
        assert {"amx_bf16", "avx512_bf16", "avx512_f", "avx2"} <= has.keys()


def test_what_bounds_the_figures_is_said() -> None:
    assert bounds("AMX", "bf16", threads=2, cores=2, load=0.0) == []
    (vectors,) = bounds("AVX512-BF16", "bf16", 2, 2, 0.0)
    assert "the matrix units of AMX" in vectors
    (native,) = bounds("AVX2", "fp32", 2, 2, 0.0)
    assert native == "fp32: bf16 is not native here; the processor's matrix products are AVX2"
    asked, threads, load = bounds("AMX", "fp32", 1, 4, 1.5)
    assert "not asked for" in asked and threads == "1 of 4 cores compute (run.threads)" and "took 1.5 cores" in load


def test_ones_own_work_is_not_that_of_others() -> None:
    beside, end = Beside(threads=1), time.perf_counter() + 0.3
    while time.perf_counter() < end:
        pass
    assert 0.0 <= beside.cores() < Beside(threads=10_000).cores()


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(tmp_path, "train", [(100, 140)])
    write_photos(tmp_path, "val", [(80, 70)])
    config = tmp_path / "tiny.toml"
    config.write_text(to_toml(tiny_table(tmp_path, steps=1)), encoding="utf-8")
    assert run_autoencoder(config) == main(["prior", "--config", str(config)]) == 0
    capsys.readouterr()
    assert main(["throughput", "--config", str(config), "--steps", "2", "--batches", "1", "--preview"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["instruction_set"] == instruction_set() and said["precision"] == "fp32"
    assert any(text.startswith("fp32: ") for text in said["bounded_by"])
    assert said["seconds_of_preview"] > 0 and 0 < said["share_of_previews"] < 1
    assert said["images_per_s"] > 0 and said["share_of_gemm"] > 0
