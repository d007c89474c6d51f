"""What a run goes on from: two states, one run to a folder, settings that changed, a disk that takes no more."""

import dataclasses
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from allosr2_core.errors import AlloSR2Error
from tests.support.equality import assert_equal
from tests.support.tiny_training import tiny_table
from tests.support.toy_stage import Toy, in_folder, state_of
from train.__main__ import main
from train.config import Config
from train.config_file import from_table
from train.loop.loop import run_stage
from train.loop.state import has_state, load_state, locked, save_state

REPOSITORY = Path(__file__).resolve().parents[2]


def toy_folder(config: Config) -> Path:
    return Path(config.run.dir) / "toy"


def changed(config: Config, part: str, **values: Any) -> Config:
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **values)})


# ---- the older state ----


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "text"])
def test_a_damaged_state_falls_back_to_the_older_one(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And the run ends as one that was never disturbed."""
    whole, hit = in_folder(tmp_path / "whole"), in_folder(tmp_path / "hit")
    run_stage(Toy(whole), whole)
    run_stage(Toy(hit), hit, max_steps=3)
    run_stage(Toy(hit), hit, max_steps=3)
    state = toy_folder(hit) / "state.pt"
    if damage == "gone":
        state.unlink()
    else:
        state.write_bytes({"cut": state.read_bytes()[:-200], "empty": b"", "text": b"hello"}[damage])
    with caplog.at_level(logging.WARNING):
        assert run_stage(Toy(hit), hit) == 10
    (said,) = [text for text in caplog.messages if "going on from" in text]
    assert "state.pt; " in said and said.endswith("going on from state.older.pt, of step 3")
    assert "\n" not in said
    assert_equal(state_of(hit), state_of(whole))


def test_both_states_damaged_is_an_error_that_names_the_older_one(tmp_path: Path) -> None:
    config = in_folder(tmp_path)
    run_stage(Toy(config), config, max_steps=3)
    run_stage(Toy(config), config, max_steps=3)
    for name in ("state.pt", "state.older.pt"):
        (toy_folder(config) / name).write_bytes(b"")
    with pytest.raises(AlloSR2Error, match=r"expected a resumable state at .*state.older.pt"):
        run_stage(Toy(config), config)


def test_a_save_keeps_the_state_before_it(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert not has_state(tmp_path)
    states = [{"trained": {}, "averaged": {}, "optimizer": {}, "step": step, "seconds": 0.0} for step in range(3)]
    for state in states:
        save_state(path, state)
    assert load_state(path) == states[2]
    assert torch.load(tmp_path / "state.older.pt", weights_only=True) == states[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.older.pt", "state.pt"]
    path.unlink()
    assert has_state(tmp_path)


def test_a_state_that_a_user_names_has_no_stand_in(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", {"step": 1})
    save_state(tmp_path / "state.pt", {"step": 2})
    (tmp_path / "mine.pt").write_bytes(b"")
    with pytest.raises(AlloSR2Error, match="mine.pt"):
        load_state(tmp_path / "mine.pt")


# ---- one run to a folder ----


def test_two_runs_in_one_folder_are_kept_apart(tmp_path: Path) -> None:
    config = in_folder(tmp_path)
    run_stage(Toy(config), config, max_steps=2)
    before = state_of(config)
    with locked(toy_folder(config)), pytest.raises(AlloSR2Error, match="toy to itself; another run is training in it"):
        run_stage(Toy(config), config)
    assert_equal(state_of(config), before)
    assert run_stage(Toy(config), config) == 10


def test_the_lock_of_a_killed_run_is_gone(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from train.loop.state import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, check=False)
    with locked(tmp_path):
        pass


# ---- settings that changed ----


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        ("adapter", {"rank": 4, "alpha": 8.0}, "toy: adapter.alpha is '8.0' now and was '0.0'"),
        ("base", {"transformer": "/a/flux1-dev.safetensors"}, "toy: base.transformer is \"'flux1-dev.safetensors'\""),
        ("base", {"dtype": "bf16"}, "toy: base.dtype is"),
        ("run", {"precision": "bf16"}, "toy: precision is \"'bf16'\" now and was \"'no'\""),
    ],
)
def test_what_a_run_is_resumed_with_is_noticed(
    tmp_path: Path, part: str, values: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = in_folder(tmp_path)
    run_stage(Toy(config), config, max_steps=2)
    AcceleratorState._reset_state(reset_partial_state=True)  # as in another process, with another precision
    run_stage(Toy(config), changed(config, part, **values), max_steps=1)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert [text for text in caplog.messages if said in text], caplog.messages


def test_another_file_of_a_base_is_noticed_and_one_that_moved_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [tmp_path / folder / "base.safetensors" for folder in ("a", "b", "c")]
    for file, content in zip(files, (b"1234", b"1234", b"12345"), strict=True):
        file.parent.mkdir()
        file.write_bytes(content)
    config = in_folder(tmp_path)
    for file, noticed in zip(files, (False, False, True), strict=True):
        caplog.clear()
        run_stage(Toy(config), changed(config, "base", transformer=str(file)), max_steps=1)
        assert any("base.transformer" in text for text in caplog.messages) is noticed, file
    assert "base.safetensors, 5 bytes" in caplog.text and "base.safetensors, 4 bytes" in caplog.text


@pytest.mark.parametrize(("first", "then"), [("adamw", "muon"), ("muon", "adamw")])
def test_another_optimiser_is_refused_by_name(tmp_path: Path, first: str, then: str) -> None:
    tables = [tiny_table(tmp_path, 4) for _ in range(2)]
    for table, name in zip(tables, (first, then), strict=True):
        table["stages"]["prior"]["optim"]["optimizer"] = name
    before, after = (from_table(Config, table, "x") for table in tables)
    run_stage(Toy(before), before, max_steps=2)
    message = (
        f"state.pt: expected the state of optimizer {then!r}; got that of {first!r}: set it back, or .* --init-from"
    )
    with pytest.raises(AlloSR2Error, match=message):
        run_stage(Toy(after), after)


# ---- a disk that takes no more ----

LIMITED = """
import resource, signal, sys
from pathlib import Path
from tests.support.toy_stage import Toy, in_folder
from train.loop.loop import run_stage
from train.__main__ import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
config = in_folder(Path(sys.argv[1]))
def stage(name, argv):
    run_stage(Toy(config), config, max_steps=3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    run_stage(Toy(config), config)
import train.__main__ as command
command.train_stage = stage
raise SystemExit(main(["prior"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="runs on POSIX: limits the size of a file")
@pytest.mark.parametrize("limit", [100, 3000])
def test_a_full_disk_is_one_line_and_the_last_state_is_whole(tmp_path: Path, limit: int) -> None:
    """The system refuses to let a file grow, as a full disk does: the log's, or the state's."""
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(limit)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error:")]
    assert "File too large" in line and str(tmp_path) in line, line
    config = in_folder(tmp_path)
    assert state_of(config)["step"] == 3
    assert not list(toy_folder(config).glob(".*.part"))
    assert run_stage(Toy(config), config) == 10


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="runs on Linux, whose /sys nobody can write")
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.support.tiny_training import run_autoencoder, to_toml, write_photos

    write_photos(tmp_path, "train", [(100, 140)])
    write_photos(tmp_path, "val", [(80, 70)])
    table = tiny_table(tmp_path)
    table["run"]["dir"] = "/sys/kernel/run"
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(table), encoding="utf-8")
    assert run_autoencoder(path) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: /sys/kernel/run") and line.count("\n") == 0
    assert main(["prior", "--config", str(path)]) == 1
