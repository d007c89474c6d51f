"""What a run says: means since the last line, every term that takes turns, the time left with its previews."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.tiny_training import tiny_table
from tests.support.toy_stage import Toy
from train.config import Config
from train.config_file import from_table
from train.loop.loop import run_stage
from train.loop.rng import BatchRandom
from train.loop.run_log import Means, RunLog


class Turns(Toy):
    """A term in even steps, one in odd steps."""

    def forward(self, batch: dict[str, Tensor], step: int, draws: BatchRandom) -> dict[str, Tensor]:
        terms = super().forward(batch, step, draws)
        return terms | {"even" if step % 2 == 0 else "odd": torch.tensor(float(step))}


def config_of(root: Path, log_every: int, steps: int = 10) -> Config:
    table = tiny_table(root, steps)
    table["run"] |= {"log_every": log_every, "preview_every": 0}
    return from_table(Config, table, "x")


def lines_of(config: Config) -> list[dict[str, Any]]:
    text = (Path(config.run.dir) / "toy" / "log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_tells_the_means_since_the_last_one(tmp_path: Path) -> None:
    each, some = config_of(tmp_path / "each", 1), config_of(tmp_path / "some", 4)
    run_stage(Turns(each), each)
    run_stage(Turns(some), some)
    every = {line["step"]: line for line in lines_of(each)}
    found = lines_of(some)
    assert [line["step"] for line in found] == [4, 8, 10]  # the last step has its line
    for line, steps in zip(found, ([1, 2, 3, 4], [5, 6, 7, 8], [9, 10]), strict=True):
        for name in ("total", "fit", "grad_norm"):
            mean = sum(every[step][name] for step in steps) / len(steps)
            assert line[name] == pytest.approx(mean, rel=1e-4), (name, steps)


def test_terms_that_take_turns_are_in_every_line(tmp_path: Path) -> None:
    """With an even number of steps between lines too, where the last step's alone would be those of odd steps."""
    config = config_of(tmp_path, 4)
    run_stage(Turns(config), config)
    assert [(line["even"], line["odd"]) for line in lines_of(config)] == [(1.0, 2.0), (5.0, 6.0), (8.0, 9.0)]


def test_means_begin_anew_when_they_are_taken() -> None:
    means = Means()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    means.add({"a": torch.tensor(3.0, dtype=torch.bfloat16)})
    assert {name: float(value) for name, value in means.take().items()} == {"a": 2.0, "b": 5.0}
    assert means.take() == {}


def run_log(folder: Path, last: int, preview_every: int) -> RunLog:
    return RunLog(folder, "toy", 0, last, preview_every, tensorboard=False)


def test_the_time_left_counts_previews(tmp_path: Path) -> None:
    with run_log(tmp_path, last=1000, preview_every=250) as journal:
        assert journal.seconds_left(0, 2.0) == 500
        journal.validation(0, {}, seconds=60.0)
        assert journal.seconds_left(1, 2.0) == 999 / 2 + 4 * 60
        assert journal.seconds_left(250, 2.0) == 750 / 2 + 4 * 60  # that of this step is still to come
        assert journal.seconds_left(251, 2.0) == 749 / 2 + 3 * 60
        assert journal.seconds_left(999, 2.0) == 1 / 2 + 60
    with run_log(tmp_path, last=1100, preview_every=250) as journal:
        journal.validation(0, {}, seconds=60.0)
        assert journal.seconds_left(1001, 2.0) == 99 / 2 + 60  # one more at the end
    with run_log(tmp_path, last=1000, preview_every=0) as journal:
        assert journal.seconds_left(500, 2.0) == 250


def test_the_progress_bar_shows_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with run_log(tmp_path, last=10, preview_every=0) as journal:
        journal.steps(5, 2, {"total": 0.1234, "fit": 0.1})
        journal.bar.refresh()
    shown = capsys.readouterr().err
    assert "5/10" in shown and re.search(r"loss 0\.1234, eta \d+ min", shown)
