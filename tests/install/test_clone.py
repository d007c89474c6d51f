"""`git clone` as the README says it: what it brings, and the way from there to a finished folder of pictures."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from install_tools import REPOSITORY, run, stated
from installed import check_folder

WEIGHTS = Path("allosr2_core") / "weights" / "allosr2-mini.safetensors"


@pytest.mark.parametrize("options", [[], ["--depth", "1"]], ids=["whole", "shallow"])
def test_a_clone_is_all_that_is_needed(bare: Path, options: list[str], tmp_path: Path) -> None:
    run("git", "clone", "--quiet", *options, bare.as_uri(), "allosr2", cwd=tmp_path)
    pack = tmp_path / "allosr2"
    assert run("git", "status", "--porcelain", cwd=pack) == ""
    assert (pack / WEIGHTS).stat().st_size > 1e7  # no pointer to a file elsewhere
    assert not (pack / ".gitmodules").exists()
    fetched = sum(path.stat().st_size for path in (pack / ".git" / "objects").rglob("*") if path.is_file())
    assert fetched / 1e6 == pytest.approx(stated("`git clone --depth 1`"), rel=0.1)  # the served one has one commit
    expected = run("git", "ls-tree", "-r", "--name-only", "HEAD", cwd=REPOSITORY)
    assert run("git", "ls-files", cwd=pack) == expected


def test_the_readmes_commands_lead_to_a_finished_folder(
    bare: Path, new_comfyui: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word, in the folder that ComfyUI is in; only git is told where the address is found here."""
    comfyui = new_comfyui()
    commands = re.search(r"^```\n(.*?git clone .*?)^```$", (REPOSITORY / "README.md").read_text(), re.S | re.M)
    assert commands, "the README has no commands that install the pack"
    address = commands.group(1).split()[-1]
    elsewhere = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{bare.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }
    run("bash", "-e", "-c", commands.group(1), cwd=comfyui.parent, **elsewhere)
    check_folder(comfyui, comfyui / "custom_nodes" / "allosr2", monkeypatch, tmp_path)
