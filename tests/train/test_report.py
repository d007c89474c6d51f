"""The HTML page about a run: complete, self-contained, and honest about runs that were cut or resumed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from train.__main__ import main
from train.loop.state import save_state
from train.studies.run_report import PREVIEWS, read_log, running_mean, series, spread


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two stages, the second with more previews than are shown."""
    for stage, steps in (("prior", 3), ("sr", 40)):
        folder = tmp_path / "my <run>" / stage
        (folder / "previews").mkdir(parents=True)
        lines = [{"step": 0, "val_psnr": 20.0}]
        lines += [{"step": i, "total": 1 / i, "fatc": 0.5, "steps_per_s": 2.0} for i in range(1, steps + 1)]
        lines += [{"step": steps, "val_psnr": 25.5}]
        (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
        for step in range(0, steps + 1, 2):
            Image.new("RGB", (1700, 40), (step, 0, 0)).save(folder / "previews" / f"{step:06d}.png")
        state = {"trained": {}, "averaged": {}, "optimizer": {}, "step": steps, "seconds": 5400.0}
        save_state(folder / "state.pt", state | {"settings": {"seed": "3"}})
    return tmp_path / "my <run>"


def test_the_page_holds_everything_and_loads_nothing(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert [p.name for p in run.iterdir() if p.is_file()] == ["report.html"]
    for text in ("my &lt;run&gt;", "<h2>prior</h2>", "<h2>sr</h2>", "40 steps, 1.50 hours", "25.5", "seed"):
        assert text in page, text
    assert page.count("<svg") == 6  # validation, loss terms and speed of each stage
    assert page.count("data:image/jpeg;base64,") == 2 + PREVIEWS
    assert "Step 0<" in page and "Step 40<" in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page.replace('xlink:href="#', ""))


def test_a_run_that_never_started_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert (
        "expected autoencoder/log.jsonl, prior/log.jsonl, sr/log.jsonl, snr_head/log.jsonl below"
        in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


def test_a_last_line_cut_by_a_kill_is_left_out_and_other_damage_is_not(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "total": 2.0}\n{"step": 2, "tot')
    assert read_log(path) == [{"step": 1, "total": 2.0}]
    path.write_text('{"step": 1, "tot\n{"step": 2, "total": 1.0}\n')
    with pytest.raises(AlloSR2Error, match="expected JSON in line 1"):
        read_log(path)


def test_steps_that_were_repeated_after_a_resume_count_once() -> None:
    rows = [
        {"step": 1, "a": 1.0},
        {"step": 2, "a": 2.0},
        {"step": 3, "a": 3.0},
        {"step": 2, "a": 20.0},
        {"step": 4, "b": 1},
    ]
    named = series(rows)
    assert named.keys() == {"a", "b"}
    assert named["a"][0].tolist() == [1, 2, 3] and named["a"][1].tolist() == [1.0, 20.0, 3.0]


def test_the_running_mean_keeps_a_line_and_flattens_noise() -> None:
    assert running_mean(np.full(9, 2.5), 5) == pytest.approx(2.5)
    assert running_mean(np.arange(9.0), 5)[2:-2] == pytest.approx(np.arange(2.0, 7.0))
    assert running_mean(np.array([1.0, 3.0, 5.0]), 3) == pytest.approx([2.0, 3.0, 4.0])


def test_previews_are_spread_over_the_run() -> None:
    paths = [Path(str(i)) for i in range(20)]
    assert spread(paths, 30) == paths
    chosen = spread(paths, 4)
    assert len(chosen) == 4 and chosen[0] == paths[0] and chosen[-1] == paths[-1]
