"""`git clone` as the README says it, with the whole history and with the last version only."""

from pathlib import Path

import pytest
from install_tools import REPOSITORY, run, stated

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
