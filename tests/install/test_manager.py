"""ComfyUI-Manager installs the pack from its address, brings a newer version, and takes it away."""

from collections.abc import Callable
from pathlib import Path

import pytest
from install_tools import manager, publish_change, run
from installed import check


def test_install_run_update_uninstall(
    bare: Path,
    address: str,
    new_comfyui: Callable[[], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comfyui = new_comfyui()
    home = {"COMFYUI_PATH": str(comfyui), "HOME": str(tmp_path)}
    pack = comfyui / "custom_nodes" / "allosr2"

    said = run(manager(), "install", address, "--mode", "local", **home)
    assert "[INSTALLED]" in said, said
    assert (pack / "__init__.py").is_file()
    check(comfyui, monkeypatch, tmp_path)

    newer = publish_change(bare, "NEWER.md", "a newer version\n", tmp_path)
    run(manager(), "update", "allosr2", "--mode", "local", **home)
    assert run("git", "rev-parse", "HEAD", cwd=pack).strip() == newer
    assert (pack / "NEWER.md").is_file()

    said = run(manager(), "uninstall", "allosr2", "--mode", "local", **home)
    assert "[UNINSTALLED]" in said, said
    assert not pack.exists()
    left = [path.name for path in (comfyui / "custom_nodes").iterdir() if "allosr2" in path.name.lower()]
    assert not left
