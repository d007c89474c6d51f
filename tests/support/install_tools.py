"""What tests/install needs: ComfyUI-Manager, a ComfyUI that it may change, and this pack in a git repository."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PINS = REPOSITORY / "tools" / "requirements-install.txt"
AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@localhost")


def run(*command: str | Path, cwd: Path | None = None, timeout: float = 300.0, **environment: str) -> str:
    """What a command prints; AssertionError with all of it when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


def stated(way: str) -> float:
    """MB that the README says an installation fetches; `way`: how its row begins."""
    found = re.search(rf"^\| {re.escape(way)}[^|]*\| (\d+) MB", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert found, f"the README has no row for {way}"
    return float(found.group(1))


def manager() -> Path:
    """The program cm-cli, in a virtual environment in the ignored cache, made the first time.

    It lives beside the main packages, since what it needs is no business of the other tests. It sees those, too: the
    Manager asks for some of ComfyUI's.
    """
    name = hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]
    folder = REPOSITORY / ".cache" / "install-tools" / name
    program = folder / "bin" / "cm-cli"
    if not (folder / ".ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "main.pth").write_text(sysconfig.get_path("purelib") + "\n")
        run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "-r", PINS)
        (folder / ".ready").touch()
    return program


def comfyui_copy(root: Path, target: Path) -> Path:
    """A ComfyUI of one's own, a git repository as the Manager wants it."""
    left_out = shutil.ignore_patterns("tests", "tests-unit", "temp", "output", "user")
    shutil.copytree(root, target, ignore=left_out)
    run("git", "init", "--quiet", cwd=target)
    run("git", *AUTHOR, "commit", "--quiet", "--allow-empty", "--message", "ComfyUI", cwd=target)
    return target


def published(target: Path) -> Path:
    """A bare repository with the files of this one's last commit as its only commit; the history would cost time."""
    run("git", "init", "--quiet", "--bare", "--initial-branch=main", target)
    run("git", "fetch", "--quiet", "--depth=1", REPOSITORY.as_uri(), "HEAD", cwd=target)
    publish(target, "FETCH_HEAD^{tree}")
    (target / "shallow").unlink()  # the new commit has no parent, so nothing is missing
    return target


def publish(bare: Path, tree: str) -> str:
    """Put a commit with this tree on main, ready to be read over plain HTTP; its id."""
    parents = [] if run("git", "branch", cwd=bare) == "" else ["-p", "main"]
    commit = run("git", *AUTHOR, "commit-tree", *parents, "-m", "A version", tree, cwd=bare).strip()
    run("git", "update-ref", "refs/heads/main", commit, cwd=bare)
    run("git", "update-server-info", cwd=bare)
    return commit


def publish_change(bare: Path, name: str, text: str, work: Path) -> str:
    """Put a commit that writes one file on main; its id."""
    index = {"GIT_INDEX_FILE": str(work / "index")}
    run("git", "read-tree", "main", cwd=bare, **index)
    (work / "blob").write_text(text)
    blob = run("git", "hash-object", "-w", work / "blob", cwd=bare).strip()
    run("git", "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", cwd=bare, **index)
    return publish(bare, run("git", "write-tree", cwd=bare, **index).strip())
