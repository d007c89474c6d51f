"""The options --comfyui and --screenshots. pytest reads a plugin that pyproject.toml names before it looks for tests.

A conftest.py is too late: its options are not known yet when pytest takes every word behind an unknown one for a folder
of tests, and loads the conftest.py of ComfyUI's own.
"""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--comfyui",
        type=Path,
        metavar="FOLDER",
        help="another ComfyUI to test with, instead of 0.3.75; name the tests before it, or write --comfyui=FOLDER: "
        "pytest takes its settings from beside the first folder it sees",
    )
    parser.addoption(
        "--screenshots",
        type=Path,
        metavar="FOLDER",
        help="where tests/browser puts pictures of what it sees; without it, it takes none",
    )
