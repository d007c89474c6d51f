"""A folder by the command line where one file cannot be written: its disk is full, or its folder read-only.

The system itself refuses: by a limit on the size of a file, which acts as a full disk does, or by rights.
"""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoints import good
from .fault_process import Said, answer_of, be_nobody, command, differences, files, start, write_noise
from .suites import Lost

FORMATS = ("png", "jpg", "webp", "tiff")
OLDER = b"older"
SPARE = 500
"""Bytes by which the summary of a run that failed is longer."""


@dataclass(frozen=True)
class Disk:
    """One folder of pictures, each in a folder of its own, and what cannot be written of it."""

    root: Path
    names: tuple[str, ...]
    bad: str
    """The picture that cannot be written, "" for the summary."""
    what: str
    """result, strip or summary."""
    how: str
    """full, read-only, or device: the system's own device that is always full."""
    older: bool
    """Whether the file that cannot be written is there already."""
    options: tuple[str, ...]
    share: float
    """Where between the smallest and the largest that fits the case the limit lies."""

    def summary(self, target: str) -> Path:
        return Path("/dev/full") if (target, self.how) == ("out", "device") else self.root / "said" / f"{target}.json"

    def arguments(self, target: str) -> tuple[str, ...]:
        paths = ("upscale", str(self.root / "in"), str(self.root / target), "--recursive", "--dtype", "fp32")
        checkpoint = ("--checkpoint", str(self.root / "tiny.safetensors"))
        return (*paths, *checkpoint, "--json", str(self.summary(target)), *self.options)

    def limit(self) -> int:
        """Bytes of a file that let everything be written but that one, by the sizes of an undisturbed run."""
        sizes = {name: len(data) for name, data in files(self.root / "whole").items()}
        summary = self.summary("whole").stat().st_size
        if self.what == "summary":
            least, most = max(sizes.values()), summary - SPARE
        else:
            least = max(summary + SPARE, *(size for name, size in sizes.items() if not self.is_bad(name)))
            of_bad = {is_strip(name): size for name, size in sizes.items() if self.is_bad(name)}
            least = max(least, of_bad[False]) if self.what == "strip" else least
            most = of_bad[self.what == "strip"] - 1
        assert least <= most, f"no limit fits: {least} to {most} bytes"
        return least + round(self.share * (most - least))

    def is_bad(self, name: str) -> bool:
        return bool(self.bad) and name.startswith(f"{self.bad}/")

    def not_written(self, name: str) -> bool:
        """Of the results of an undisturbed run, by their names."""
        return self.is_bad(name) and (self.what == "result" or is_strip(name))


def is_strip(name: str) -> bool:
    return name.endswith(".compare.png")


def full_disk(rng: random.Random, folder: Path) -> Callable[[], None]:
    what = rng.choice(("result", "result", "strip", "summary"))
    how = rng.choice(("full", "full", "read-only") if what != "strip" else ("full",))
    how = rng.choice((how, "device")) if what == "summary" else how
    file_format = rng.choice(FORMATS)
    names = tuple("abcdef"[: rng.randint(2, 5) if what != "summary" else 6])
    bad = "" if what == "summary" else rng.choice(names)
    options = ("--format", file_format, *(("--compare",) if what == "strip" or rng.random() < 0.4 else ()))
    source = "png" if what != "result" else rng.choice(("png", "png", "gif", "tif"))
    if what == "result" and source == "png" and file_format in ("png", "tiff") and rng.random() < 0.4:
        options += ("--depth", "16")
    for name in names:
        if name == bad:
            write_noise(folder / "in" / name / f"p.{source}", rng, 40, 48, frames=1 if source == "png" else 3)
        else:
            write_noise(folder / "in" / name / "p.png", rng, *((2, 3) if what == "summary" else (5, 6)))
    (folder / "tiny.safetensors").write_bytes(good())
    (folder / "said").mkdir()
    share = rng.choice((0.0, 1.0, rng.random()))
    disk = Disk(folder, names, bad, what, how, rng.random() < 0.6, options, share)
    prepare(disk, rng.choice((0.0, 0.3)), rng, file_format)
    return lambda: attempt(disk)


def prepare(disk: Disk, often: float, rng: random.Random, file_format: str) -> None:
    """What is there before: older files, and the folder that is to become read-only."""
    for name in disk.names:
        if (disk.older and name == disk.bad) or rng.random() < often:
            place = disk.root / "out" / name
            place.mkdir(parents=True)
            (place / f"p.{file_format}").write_bytes(OLDER)
            if "--compare" in disk.options:
                (place / "p.compare.png").write_bytes(OLDER)
    if disk.how == "read-only" and disk.bad:
        (disk.root / "out" / disk.bad).mkdir(parents=True, exist_ok=True)
    if disk.older and disk.what == "summary" and disk.how != "device":
        disk.summary("out").write_bytes(OLDER)


def disturbed(answers: Any, disk: Disk) -> None:  # noqa: ANN401 - a Connection
    """In a process of its own: the command undisturbed, and then where something cannot be written."""
    whole = command(disk.arguments("whole"))
    limit = disk.limit() if disk.how == "full" else 0
    be_nobody(disk.root)
    shut = disk.root / "out" / disk.bad if disk.bad else disk.root / "said"
    if disk.how == "read-only":
        shut.chmod(0o555)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    said = command(disk.arguments("out"))
    if disk.how == "read-only":
        shut.chmod(0o755)  # it has to be removed
    answers.send((whole, said, limit))


def attempt(disk: Disk) -> None:
    sources, before = files(disk.root / "in"), files(disk.root / "out")
    process, answers = start(disturbed, disk)
    whole, said, limit = answer_of(process, answers)
    process.join()
    assert whole[0] == 0, whole
    if files(disk.root / "in") != sources:
        raise Lost("an input was changed")
    at = f"{disk.what} {disk.bad or 'summary'} {disk.how} {limit} bytes {' '.join(disk.options)}"
    check_files(disk, before, at)
    check_said(disk, said, at)


def check_files(disk: Disk, before: dict[str, bytes], at: str) -> None:
    """The other pictures are done, what could not be written is as it was."""
    expected = {name: data for name, data in files(disk.root / "whole").items() if not disk.not_written(name)}
    kept = {name: data for name, data in before.items() if name not in expected}
    if wrong := differences(files(disk.root / "out"), expected | kept):
        raise Lost(f"{at}: neither whole nor as they were: {wrong}")
    empty = [path.name for path in (disk.root / "out").iterdir() if not any(path.iterdir())]
    assert not empty or (disk.how, empty) == ("read-only", [disk.bad]), f"{at}: empty folders are left: {empty}"
    summaries = files(disk.root / "said")
    if disk.what != "summary":
        totals = json.loads(summaries.pop("out.json"))["totals"]
        assert (totals["done"], totals["failed"]) == (len(disk.names) - 1, 1), f"{at}: {totals}"
    older = disk.older and disk.what == "summary" and disk.how != "device"
    if summaries.keys() - {"whole.json"} != ({"out.json"} if older else set()):
        raise Lost(f"{at}: summaries {sorted(summaries)}")
    if older and summaries["out.json"] != OLDER:
        raise Lost(f"{at}: an older summary was changed")


def check_said(disk: Disk, said: Said, at: str) -> None:
    """Exit code 1 and one line that says which file and why."""
    code, out, err = said
    assert code == 1, f"{at}: exit code {code}: {err}"
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1 and len(lines[0]) < 1600, f"{at}: {lines}"
    summary = disk.what == "summary"
    name = str(disk.summary("out") if summary else disk.root / "out" / disk.bad / "p.")
    why = {"full": "File too large", "read-only": "Permission denied", "device": "No space left on device"}[disk.how]
    assert lines[0].startswith("error: " if summary else "failed: "), f"{at}: {lines}"
    assert name in lines[0] and "could not be written" in lines[0] and why in lines[0], f"{at}: {lines}"
    done = len(disk.names) - (0 if summary else 1)
    assert out.splitlines()[-1].startswith(f"{done} picture"), f"{at}: {out}"
