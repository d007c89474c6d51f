"""What a run keeps on disk survives a kill at any moment, and foreign files are refused by name."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from allosr2_core.errors import AlloSR2Error
from train.loop.state import export, find_state, load_state, load_trained_state, save_state, trained_state

WRITER = """
import sys, torch
from pathlib import Path
from train.loop.state import save_state
path, step = Path(sys.argv[1]), 0
while True:
    tensors = {"a": torch.full((1_000_000,), float(step))}
    save_state(path, {"trained": tensors, "averaged": {}, "optimizer": {}, "step": step, "seconds": 0.0})
    print(step, flush=True)
    step += 1
"""


@pytest.mark.parametrize("delay_ms", [0, 2, 5, 9])
def test_a_kill_in_the_middle_of_a_save_leaves_a_whole_state(tmp_path: Path, delay_ms: int) -> None:
    """SIGKILL while a process does nothing but save: the file is the last one written or the one after it."""
    path = tmp_path / "state.pt"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(3):
            reported = int(writer.stdout.readline())
        time.sleep(delay_ms / 1000)
        os.kill(writer.pid, signal.SIGKILL)
        rest = [int(line) for line in writer.stdout if line.endswith("\n")]
    reported = rest[-1] if rest else reported
    state = load_state(path)
    assert state["step"] in (reported, reported + 1)
    assert torch.equal(state["trained"]["a"], torch.full((1_000_000,), float(state["step"])))


def test_files_that_are_no_state_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match="expected a resumable state at .*state.pt; there is none"):
        load_state(tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("not a state")
    with pytest.raises(AlloSR2Error, match=r"expected a resumable state at .*text.pt; \w+Error"):
        load_state(tmp_path / "text.pt")
    save_state(tmp_path / "part.pt", {"step": 3})
    with pytest.raises(AlloSR2Error, match=r"expected \['averaged', .*got \['step'\]"):
        load_state(tmp_path / "part.pt")
    (tmp_path / "part.pt").write_bytes((tmp_path / "part.pt").read_bytes()[:-40])
    with pytest.raises(AlloSR2Error, match="expected a resumable state"):
        load_state(tmp_path / "part.pt")


def test_a_state_is_found_by_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").touch()
    assert find_state(tmp_path / "mine.pt") == tmp_path / "mine.pt"
    assert find_state(tmp_path) == tmp_path / "state.pt"


def test_only_what_is_trained_is_kept(tmp_path: Path) -> None:
    module = nn.ModuleDict({"net": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))})
    module["net"][0].requires_grad_(False)
    kept = trained_state(module)
    assert kept.keys() == {
        "net.1.weight",
        "net.1.bias",
        "net.1.running_mean",
        "net.1.running_var",
        "net.1.num_batches_tracked",
    }
    export(module, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    tensors = load_file(tmp_path / "net.safetensors")
    load_trained_state(module["net"], {k: v + 1 for k, v in tensors.items()}, "here")
    assert torch.equal(module["net"][1].weight, torch.full((3,), 2.0))
    with pytest.raises(AlloSR2Error, match=r"here: expected the 5 .*; 1 differ, first '1.bias': .*\(3,\), got None"):
        load_trained_state(module["net"], {k: v for k, v in tensors.items() if k != "1.bias"}, "here")
