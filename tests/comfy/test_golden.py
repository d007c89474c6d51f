"""The pictures of the example workflows, and so `make demo`'s, are the recorded ones: tests/golden/README.md."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_server import ComfyServer

from tests.golden.arithmetic import kind_of_new_process
from tests.golden.table import load
from tests.golden.workflows import EXAMPLES, golden_server, kind_of_host, make

TABLE = load()
WORKFLOWS = [name for name, row in TABLE.rows.items() if row.workflow is not None]


@pytest.fixture(scope="module")
def server(comfyui_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """One of its own: results are compared in fp32."""
    with golden_server(comfyui_root, tmp_path_factory.mktemp("golden")) as running:
        yield running


@pytest.fixture(scope="module")
def kind(server: ComfyServer) -> str:
    return kind_of_host(server, kind_of_new_process())


def test_every_way_through_the_nodes_is_in_the_table() -> None:
    """In both forms: the nodes one by one, core's sampler, a base of the user's."""
    names = ("allosr2_upscale", "allosr2_stock_sampler", "allosr2_flux")
    files = {f"{folder}{name}.json" for name in names for folder in ("", "api/")}
    assert {TABLE.rows[name].workflow for name in WORKFLOWS} == files
    assert all((EXAMPLES / name).is_file() for name in files)


@pytest.mark.usefixtures("recorded_host")
@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_picture_is_the_recorded_one(server: ComfyServer, kind: str, tmp_path: Path, name: str) -> None:
    record = TABLE.rows[name].record
    assert record is not None
    found = make(TABLE.rows[name], server, kind, tmp_path)
    assert found.source == record.source, "the picture it is made of is another one here"
    assert record.differences(found) == []
