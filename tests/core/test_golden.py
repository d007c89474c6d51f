"""Results of the command line with the embedded checkpoint are the recorded ones: tests/golden/README.md."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.golden import commands
from tests.golden.__main__ import main
from tests.golden.arithmetic import kind_of_machine
from tests.golden.fingerprint import TOLERANCE, read_values
from tests.golden.pictures import write_source
from tests.golden.table import RESULTS, Record, Table, load, save

TABLE = load()
COMMANDS = [name for name, row in TABLE.rows.items() if row.workflow is None]
ELSEWHERE = "a machine that is not in the table"
QUICK = "realism-0.5"


@pytest.fixture(scope="module")
def kind() -> str:
    return kind_of_machine(commands.THREADS)


def recorded(name: str) -> Record:
    record = TABLE.rows[name].record
    assert record is not None
    return record


@pytest.mark.parametrize("name", COMMANDS)
def test_the_result_is_the_recorded_one(kind: str, tmp_path: Path, name: str) -> None:
    found = commands.make(TABLE.rows[name], tmp_path, kind)
    assert found.source == recorded(name).source, "the picture it is made of is another one here"
    assert recorded(name).differences(found) == []


# ---- the check can fail ----


@pytest.mark.parametrize("name", ["factor-4", "grey-16-bit"])
def test_one_level_in_a_small_area_is_another_hash(tmp_path: Path, name: str) -> None:
    """Where the machine is one of the table; elsewhere so little is taken for another machine's rounding."""
    source_HWC = read_values(write_source(TABLE.rows[name].picture, tmp_path / "in"))
    changed_HWC = source_HWC.copy()
    changed_HWC[8:10, 12:14] ^= 1
    before = Record.of(source_HWC, source_HWC, "here")
    (said,) = before.differences(Record.of(source_HWC, changed_HWC, "here"))
    assert said.startswith("other values than recorded")
    assert before.differences(Record.of(source_HWC, changed_HWC, ELSEWHERE)) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("factor-4", ("--realism", "0.95")),
        ("factor-1", ("--realism", "0.95")),
        ("realism-1.5", ("--realism", "1.45")),
        ("t-manual", ("--t", "0.31")),
        ("t-calibrated", ("--t", "predicted")),
        ("tiles", ("--overlap", "16")),
        ("wavelet", ("--color", "none")),
        ("16-bit", ("--shifted",)),
    ],
)
def test_a_knob_turned_a_little_is_found_on_any_machine(tmp_path: Path, name: str, options: Sequence[str]) -> None:
    found = commands.make(TABLE.rows[name], tmp_path, ELSEWHERE, *options)
    (said,) = recorded(name).differences(found)
    assert said.startswith("cells differ by up to ")
    assert recorded(name).fingerprint.difference(found.fingerprint) > 2 * TOLERANCE


def test_another_size_or_depth_is_found(tmp_path: Path) -> None:
    for options in (("--scale", "3"), ("--depth", "16")):
        folder = tmp_path / options[0]
        folder.mkdir()
        (said,) = recorded(QUICK).differences(commands.make(TABLE.rows[QUICK], folder, ELSEWHERE, *options))
        assert said.startswith("expected (256, 256, 3) at 8 bits, got ")


# ---- the table ----


def test_the_table_is_as_it_would_be_written(tmp_path: Path) -> None:
    save(TABLE, tmp_path / "results.json")
    assert (tmp_path / "results.json").read_bytes() == RESULTS.read_bytes()


def test_the_table_keeps_the_hashes_of_one_result_only() -> None:
    picture_HWC = np.full((16, 16, 3), 100, dtype=np.uint8)
    darker_HWC = picture_HWC - 1
    table = Table({QUICK: TABLE.rows[QUICK]}).with_record(QUICK, Record.of(picture_HWC, picture_HWC, "one"), "first")
    for kind, values_HWC, kinds in (("two", picture_HWC, {"one", "two"}), ("two", darker_HWC, {"two"})):
        table = table.with_record(QUICK, Record.of(picture_HWC, values_HWC, kind), "second")
        record = table.rows[QUICK].record
        assert record is not None and set(record.sha256) == kinds


def test_the_command_writes_only_when_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    shutil.copyfile(RESULTS, path)
    assert main([QUICK, "--table", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{QUICK}: as recorded, to ")
    path.write_text(path.read_text(encoding="utf-8").replace('"--realism", "0.5"', '"--realism", "0.6"'))
    before = path.read_bytes()
    assert main([QUICK, "--table", str(path)]) == 1
    said = capsys.readouterr().out
    assert f"{QUICK}: cells differ by up to " in said and "Nothing was written" in said
    assert path.read_bytes() == before
    assert main([QUICK, "--table", str(path), "--write"]) == 0
    assert path.read_bytes() != before
    assert main([QUICK, "--table", str(path)]) == 0
