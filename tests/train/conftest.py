"""A small checkpoint; tests marked `weights` fetch published weights on their first run (190 MB, verified)."""

from pathlib import Path

import pytest

from tests.support.small_checkpoint import save_small_checkpoint


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "weights: needs published weights, fetched on first use; -m 'not weights' leaves it out"
    )


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint file, to be read alone."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_small_checkpoint(path)
    return path
