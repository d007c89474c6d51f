"""Two processes that share a batch train the same network as one: `accelerate launch`, gloo, real commands."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from allosr2_core.errors import AlloSR2Error
from tests.support.equality import assert_equal
from tests.support.tiny_base import base_table
from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_config, write_photos
from train.__main__ import main
from train.config import Config
from train.config_file import from_table
from train.stages.sr import SRStage

STEPS = 4
TOLERANCE = 2e-5
"""Adam divides by the size of a gradient: where there is next to none, it enlarges how two processes round."""
REPOSITORY = Path(__file__).parents[2]


def launch(stage: str, config: Path, *options: str, processes: int = 2, module: str = "train") -> str:
    """accelerate starts CPU processes through MPI; without it each is launched with its rank, as on many machines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "-m",
        module,
        stage,
        "--config",
        str(config),
        *options,
    ]
    running = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ
            | {key: str(value) for key, value in shared.items()}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0] * processes, "\n".join(outputs)
    return "\n".join(outputs)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("distributed")
    write_photos(root, "train", [(100, 140), (128, 96)])
    write_photos(root, "val", [(80, 70)])
    one, two = (write_config(root, name, STEPS, batch=4) for name in ("one", "two"))
    assert run_autoencoder(one) == 0
    (root / "two").mkdir()
    (root / "two" / "autoencoder").symlink_to(root / "one" / "autoencoder")
    for stage in ("prior", "sr", "snr_head"):
        assert main([stage, "--config", str(one)]) == 0
        if stage == "snr_head":  # from the same weights, not from weights that are the same to 1e-5
            for path in (root / "one" / "sr").glob("*.safetensors"):
                shutil.copy(path, root / "two" / "sr")
        launch(stage, two)
    return root


@pytest.mark.parametrize("stage", ["prior", "sr", "snr_head"])
def test_two_processes_give_the_result_of_one(root: Path, stage: str) -> None:
    one, two = (torch.load(root / name / stage / "state.pt", weights_only=True) for name in ("one", "two"))
    assert one["step"] == two["step"] == STEPS
    for part in ("trained", "averaged"):
        assert one[part].keys() == two[part].keys()
        for name, value in one[part].items():
            assert float((two[part][name] - value).abs().max()) <= TOLERANCE, (part, name)


def test_two_processes_train_the_discriminator_of_one(root: Path) -> None:
    one, two = (torch.load(root / name / "sr" / "state.pt", weights_only=True)["adversary"] for name in ("one", "two"))
    assert one["trained"].keys() == two["trained"].keys()
    assert {"conv_in.weight", "down.0.left"} <= one["trained"].keys()
    for name, value in one["trained"].items():
        assert float((two["trained"][name] - value).abs().max()) <= TOLERANCE, name


def test_two_processes_hold_the_parts_whose_rate_is_zero(root: Path, tmp_path: Path) -> None:
    """DistributedDataParallel would wait for gradients that nobody makes."""
    states = []
    for name in ("one", "two"):
        table = tiny_table(root, steps=STEPS)
        table["run"] |= {"dir": str(tmp_path / name), "preview_every": 0}
        table["stages"]["sr"] |= {"encoder_lr": 0.0, "head_lr": 0.0}
        table["stages"]["sr"]["optim"]["batch"] = 4
        config = tmp_path / f"{name}.toml"
        config.write_text(to_toml(table), encoding="utf-8")
        (tmp_path / name).mkdir()
        for stage in ("autoencoder", "prior"):
            (tmp_path / name / stage).symlink_to(root / "one" / stage)
        if name == "one":
            assert main(["sr", "--config", str(config)]) == 0
        else:
            launch("sr", config)
        states.append(torch.load(tmp_path / name / "sr" / "state.pt", weights_only=True)["trained"])
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert float((states[1][name] - value).abs().max()) <= (0 if name.startswith("encoder") else TOLERANCE), name


def test_the_processes_write_one_log(root: Path) -> None:
    lines = (root / "two" / "sr" / "log.jsonl").read_text().splitlines()
    assert len(lines) == STEPS + 2  # one a step, previews before the first and after the last


def test_a_base_spread_over_two_processes_trains_the_same_adapter(tmp_path: Path) -> None:
    """FSDP2 for what is frozen, whole branches in each process: the state of two processes with whole networks."""
    write_photos(tmp_path, "train", [(100, 140), (128, 96)])
    write_photos(tmp_path, "val", [(80, 70)])
    states, said = [], []
    for name, shard in (("whole", False), ("spread", True)):
        table = base_table(tmp_path, guidance=True, steps=3)
        table["run"]["dir"] = str(tmp_path / name)
        table["adapter"]["shard"] = shard
        config = tmp_path / f"{name}.toml"
        config.write_text(to_toml(table), encoding="utf-8")
        launch("sr", config, "--max-steps", "2")
        said.append(launch("sr", config))  # resumes
        states.append(torch.load(tmp_path / name / "sr" / "state.pt", weights_only=True))
    assert ["frozen blocks spread over 2 processes" in text for text in said] == [False, True]
    whole, spread = states
    assert any(name.endswith("lora.up.weight") and bool(value.any()) for name, value in whole["trained"].items())
    assert_equal(whole, spread)


def test_only_the_branches_of_a_transformer_can_be_spread(root: Path) -> None:
    table = tiny_table(root, steps=STEPS)
    table["run"]["dir"] = str(root / "one")
    table["adapter"]["shard"] = True
    stage = SRStage(from_table(Config, table, "x"))
    with pytest.raises(AlloSR2Error, match="adapter.shard: expected branches .* on a network of type 'flux'"):
        stage.blocks_to_shard()


def test_no_group_of_processes_outlives_a_stage(root: Path) -> None:
    """gloo's threads would end with the interpreter, now and then by aborting it."""
    said = launch("prior", root / "two.toml", module="tests.support.group_after_training")
    assert said.count("trained by 2; still in a group: False") == 2


def test_a_batch_that_cannot_be_shared_evenly_is_refused(root: Path, tmp_path: Path) -> None:
    table = tiny_table(root, steps=STEPS)
    table["run"]["dir"] = str(tmp_path / "odd")
    table["stages"]["prior"]["optim"]["batch"] = 3
    config = tmp_path / "odd.toml"
    config.write_text(to_toml(table), encoding="utf-8")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "autoencoder").symlink_to(root / "one" / "autoencoder")
    with pytest.raises(AssertionError, match="expected a batch that 2 processes share evenly; got 3"):
        launch("prior", config)
