"""The memory table: what it counts agrees with what a real network keeps, and it allocates nothing."""

from pathlib import Path

import pytest
import torch
from torch import nn

from allosr2_core.errors import AlloSR2Error
from train.config_file import load_config
from train.studies.memory_plan import BYTES_TRAINED, SavedBytes, measure, table

CONFIG = load_config(Path("train/configs/flux1_dev.toml"))


def test_saved_bytes_are_the_tensors_the_backward_pass_needs() -> None:
    """Two linear layers and a ReLU: the layers' inputs, one of which is the ReLU's result; no weights."""
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    x = torch.randn(7, 10)
    with SavedBytes(network) as saved:
        network(x)
    assert saved.total == 4 * (7 * 10 + 7 * 20)
    with torch.device("meta"):
        shadow = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
        with SavedBytes(shadow) as counted:
            shadow(torch.zeros(7, 10))
    assert counted.total == saved.total


def test_flux1_dev_needs_what_its_parameters_say() -> None:
    plain, saving = measure(CONFIG, 1, checkpointing=False), measure(CONFIG, 1, checkpointing=True)
    assert plain.transformer == pytest.approx(2 * 11.9e9, rel=1e-2)  # bf16
    assert plain.autoencoder == pytest.approx(4 * 83.8e6, rel=1e-2)
    rank = CONFIG.adapter.rank
    single = 38 * rank * ((3072 + 21504) + (15360 + 3072))
    double = 19 * 2 * rank * ((3072 + 9216) + (3072 + 3072) + (3072 + 12288) + (12288 + 3072))
    assert plain.adapter == pytest.approx(BYTES_TRAINED * (single + double), rel=0.05)  # and the encoder's, a little
    assert saving.activations < 0.5 * plain.activations
    more = measure(CONFIG, 4, checkpointing=True)
    assert 2 * saving.activations < more.activations < 5 * saving.activations


def test_the_table_names_every_layout() -> None:
    lines = table(CONFIG, (1, 2)).splitlines()
    assert len(lines) == 2 + 4
    assert all(line.count("|") == 7 for line in lines)
    with pytest.raises(AlloSR2Error, match="expected the configuration of an adapter"):
        table(load_config(Path("train/configs/mini.toml")), (1,))
