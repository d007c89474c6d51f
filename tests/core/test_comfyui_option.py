"""--comfyui FOLDER is an option of this suite, not a folder of tests, though a ComfyUI has tests of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
THIS = str(Path(__file__).relative_to(REPOSITORY))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What pytest sees of a ComfyUI."""
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text("raise RuntimeError('loaded')\n")
    return tmp_path


@pytest.mark.parametrize(
    "form", ["{tests} --comfyui {folder}", "{tests} --comfyui={folder}", "--comfyui={folder} {tests}"]
)
def test_a_comfyui_is_not_taken_for_tests(folder: Path, form: str) -> None:
    arguments = form.format(tests=THIS, folder=folder).split()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 tests collected" in done.stdout
