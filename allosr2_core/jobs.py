"""Which picture goes to which file: one file, or every picture of a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import AlloSR2Error
from .image.read import READABLE_SUFFIXES
from .image.write import WRITABLE_SUFFIXES


@dataclass(frozen=True)
class Job:
    """One picture to read and the file to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class JobList:
    """jobs in the order of their names; skipped: files of the input folder whose suffix is not a picture's."""

    jobs: tuple[Job, ...]
    skipped: tuple[Path, ...] = ()


def plan_jobs(source: Path, target: Path) -> JobList:
    """Pair inputs with outputs; nothing is read or created.

    A file goes to `target` itself when that ends in .png, .jpg, .jpeg or .webp, else into the folder `target` under its
    own name. A folder (not its subfolders) goes into the folder `target`. In a folder the suffix is kept where it
    can be written, else it becomes .png. Raises AlloSR2Error when the input is missing or has no pictures, when the
    output has another suffix, or when an output would replace one of the inputs.
    """
    if source.is_dir():
        entries = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
        pictures = [path for path in entries if path.suffix.lower() in READABLE_SUFFIXES]
        if not pictures:
            raise AlloSR2Error(
                f"{source}: expected a folder with pictures ({', '.join(READABLE_SUFFIXES)}), found none"
            )
        if not _means_folder(target):
            raise AlloSR2Error(f"{target}: expected a folder for the results of a folder")
        jobs = JobList(
            jobs=_into_folder(pictures, target),
            skipped=tuple(path for path in entries if path.suffix.lower() not in READABLE_SUFFIXES),
        )
    elif source.exists():
        if _means_folder(target):
            jobs = JobList(jobs=_into_folder([source], target))
        elif target.suffix.lower() in WRITABLE_SUFFIXES:
            jobs = JobList(jobs=(Job(source, target),))
        else:
            raise AlloSR2Error(f"{target}: expected a folder, or a file ending in {', '.join(WRITABLE_SUFFIXES)}")
    else:
        raise AlloSR2Error(f"{source}: expected a picture or a folder, found nothing")
    _refuse_overwriting_inputs(jobs.jobs)
    return jobs


def _means_folder(target: Path) -> bool:
    return target.is_dir() or (not target.exists() and target.suffix == "")


def _into_folder(pictures: list[Path], folder: Path) -> tuple[Job, ...]:
    """Every picture under its own name; a.tif and a.png would both become a.png, so the second becomes a.tif.png."""
    # Pictures that keep their name come first: their outputs must not depend on what else is there.
    taken = {path.name.casefold() for path in pictures if path.suffix.lower() in WRITABLE_SUFFIXES}
    jobs = []
    for path in pictures:
        name = path.name
        if path.suffix.lower() not in WRITABLE_SUFFIXES:
            name = next(n for n in _names(path) if n.casefold() not in taken)
            taken.add(name.casefold())
        jobs.append(Job(path, folder / name))
    return tuple(jobs)


def _names(path: Path) -> Iterator[str]:
    yield f"{path.stem}.png"
    yield f"{path.name}.png"
    number = 2
    while True:
        yield f"{path.name}-{number}.png"
        number += 1


def _refuse_overwriting_inputs(jobs: tuple[Job, ...]) -> None:
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        same = job.target.exists() and job.target.samefile(job.source)  # also a hard link or another spelling
        if same or job.target.resolve() in sources:
            raise AlloSR2Error(f"{job.target}: expected an output that is not an input, this would replace it")
