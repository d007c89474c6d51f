"""What every benchmark relies on, and that each of them runs. Never how fast."""

import importlib
import inspect
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import scaling
from benchmarks.measure import MEBI, Row, in_turns, machine, max_difference, medians, with_peak


def test_cases_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    found = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert [len(values) for values in found.values()] == [3, 3]
    assert medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}


def test_no_round_begins_after_the_time_but_one_is_made() -> None:
    found = in_turns({"a": lambda: time.sleep(0.02)}, rounds=1000, seconds=0.0)
    assert len(found["a"]) == 1


@pytest.mark.parametrize("mebibytes", [40, 160])
def test_the_peak_is_seen_though_it_is_gone_at_the_end(mebibytes: int) -> None:
    def work() -> float:
        return float(torch.ones(mebibytes * MEBI // 4).sum())

    for _ in range(2):  # what came before does not count
        result, peak, seconds = with_peak(work)
        assert result == pytest.approx(mebibytes * MEBI / 4, rel=1e-3)
        assert mebibytes * 0.95 < peak < mebibytes * 1.3 + 20
        assert seconds > 0


def test_differences_are_parts_of_full_scale() -> None:
    assert max_difference(torch.tensor([0.0, 3.0]), torch.tensor([0.5, 2.0]), 2.0) == 0.5


def test_the_machine_describes_itself() -> None:
    assert {"cpu", "cores", "memory_gib", "torch"} <= set(machine())


def test_rows_become_a_table_and_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Row("start", "a", "1 px", 0.5, figures={"gflops": 2.0}),
        Row("start", "b", "1 px", 1.0, ratio=2.0, against="a"),
    ]
    monkeypatch.setattr(importlib.import_module("benchmarks.start"), "run", lambda quick: rows if quick else [])
    path = tmp_path / "new" / "rows.json"
    assert command.main(["start", "--quick", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| name | size | seconds | gflops | ratio | against |"
    assert lines[2] == "| a | 1 px | 0.5 | 2 |  |  |" and len(lines) == 4
    written = json.loads(path.read_text())
    assert written["rows"][0] == {"bench": "start", "name": "a", "size": "1 px", "seconds": 0.5, "gflops": 2.0}
    assert [p.name for p in path.parent.iterdir()] == ["rows.json"]


def test_a_run_that_dies_keeps_its_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def dies(quick: bool) -> Iterator[Row]:
        yield Row("start", "a", "1 px", 0.5)
        raise MemoryError

    monkeypatch.setattr(importlib.import_module("benchmarks.start"), "run", dies)
    path = tmp_path / "rows.json"
    with pytest.raises(MemoryError):
        command.main(["start", "--json", str(path)])
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == ["a"]


def test_every_benchmark_can_be_named() -> None:
    for name in command.BENCHES:
        assert callable(importlib.import_module(f"benchmarks.{name}").run)
    for arguments in (
        ["nothing"],
        ["start", "--sizes", "64"],
        ["scaling", "--sizes", "0"],
        ["scaling", "--sizes", "a"],
    ):
        with pytest.raises(SystemExit):
            command.main(arguments)


@pytest.mark.parametrize("name", command.SIZED)
def test_sizes_reach_the_benchmark(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    bench, asked = importlib.import_module(f"benchmarks.{name}"), []
    assert "sizes" in inspect.signature(bench.run).parameters
    monkeypatch.setattr(bench, "run", lambda quick, sizes: asked.append(sizes) or [])
    assert command.main([name, "--sizes", "64,128"]) == 0
    assert asked == [(64, 128)]


def test_scaling_on_the_embedded_checkpoint(tmp_path: Path) -> None:
    rows = list(scaling.run(quick=True, sizes=(64, 128)))
    assert [row.size for row in rows] == ["64 px", "128 px"]
    assert all(row.seconds and row.figures and row.figures["seconds_per_megapixel"] > 0 for row in rows)
    scaling.draw(rows, tmp_path / "scaling.svg")
    assert (tmp_path / "scaling.svg").read_text().count("<path") > 4
    with pytest.raises(SystemExit):
        command.main(["start", "--figure", str(tmp_path / "none.svg")])  # has no picture
