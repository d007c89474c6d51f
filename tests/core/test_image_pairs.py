"""Which picture goes to which file: what IN and OUT mean, names of results, and that nothing collides."""

from pathlib import Path

import pytest

from allosr2_core.cli.names import pair_outputs
from allosr2_core.cli.paths import Inputs, find_inputs
from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.read import Header

STILL = {"height": 3, "width": 5, "frames": 1, "animated": False, "transparent": False, "bits": 8, "grey": False}


def header(**changes: object) -> Header:
    return Header(**{**STILL, "loop": 0, **changes})  # type: ignore[arg-type]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(inputs: Inputs, headers: dict[Path, Header] | None = None, file_format: str | None = None) -> dict[str, str]:
    """Source -> target, both from their folders on."""
    jobs = pair_outputs(inputs, headers or {}, file_format)
    return {
        job.source.relative_to(inputs.root).as_posix(): job.target.relative_to(inputs.target).as_posix() for job in jobs
    }


# ---- what IN and OUT mean ----


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("out", "out/a.png"),
        ("out/", "out/a.png"),
        ("out.png", "out.png"),
        ("out.png/", "out.png/a.png"),
        ("2024.05.01", "2024.05.01/a.png"),
        ("2024.05.01/", "2024.05.01/a.png"),
        ("photos.old/", "photos.old/a.png"),
        ("St. Ives", "St. Ives/a.png"),
        ("there.png", "there.png/a.png"),  # a folder that exists
    ],
)
def test_where_one_picture_goes(tmp_path: Path, target: str, expected: str) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "there.png").mkdir()
    inputs = find_inputs(str(tmp_path / "a.png"), f"{tmp_path}/{target}")
    assert [job.target for job in pair_outputs(inputs, {})] == [tmp_path / expected]


@pytest.mark.parametrize("target", ["out", "2024.05.01", "photos.old", "out.png/", "there.png"])
def test_a_folder_goes_into_a_folder(tmp_path: Path, target: str) -> None:
    touch(tmp_path, "in/a.png")
    (tmp_path / "there.png").mkdir()
    inputs = find_inputs(str(tmp_path / "in"), f"{tmp_path}/{target}")
    assert [job.target for job in pair_outputs(inputs, {})] == [tmp_path / target / "a.png"]


def test_names_too_long_are_no_crash(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    inputs = find_inputs(str(tmp_path / "a.png"), f"{tmp_path}/{'x' * 300}.png")
    assert len(pair_outputs(inputs, {}, compare=True)) == 1
    with pytest.raises(AlloSR2Error, match="found nothing"):
        find_inputs(f"{tmp_path}/{'x' * 300}.png", f"{tmp_path}/out")


def test_recursive_keeps_the_tree_and_leaves_the_results_alone(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "x/a.jpg", "x/y/a.jpg", "x/notes.txt", ".trash/a.png", "out/b.png", "out/x/a.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    inputs = find_inputs(str(tmp_path), str(tmp_path / "out"), recursive=True)
    assert names(inputs) == {name: name for name in ("b.png", "x/a.jpg", "x/y/a.jpg")}
    assert ([path.name for path in inputs.others], [path.name for path in inputs.links]) == (["notes.txt"], ["loop"])
    assert names(find_inputs(str(tmp_path), str(tmp_path / "out"))) == {"b.png": "b.png"}


def test_a_folder_with_pictures_below_only(tmp_path: Path) -> None:
    touch(tmp_path, "in/x/a.png")
    with pytest.raises(AlloSR2Error, match="--recursive looks into the folders below"):
        find_inputs(str(tmp_path / "in"), str(tmp_path / "out"))
    assert len(find_inputs(str(tmp_path / "in"), str(tmp_path / "out"), recursive=True).pictures) == 1


# ---- names of results ----


@pytest.mark.parametrize(
    ("name", "facts", "file_format", "expected"),
    [
        ("a.tif", {}, None, "a.tif"),
        ("a.TIFF", {"bits": 16}, None, "a.TIFF"),
        ("a.jpeg", {}, None, "a.jpeg"),
        ("a.jfif", {}, None, "a.jpg"),
        ("a.jpe", {}, None, "a.jpg"),
        ("a.mpo", {}, None, "a.jpg"),
        ("a.bmp", {}, None, "a.png"),
        ("a.avif", {"transparent": True}, None, "a.png"),
        ("a.gif", {}, None, "a.png"),
        ("a.apng", {"frames": 3, "animated": True}, None, "a.png"),
        ("a.gif", {"frames": 3, "animated": True}, None, "a.webp"),
        ("a.png", {"frames": 3, "animated": True}, None, "a.png"),
        ("a.jpg", {"transparent": True}, None, "a.png"),
        ("a.jfif", {"transparent": True}, None, "a.png"),
        ("a.png", {}, "jpg", "a.jpg"),
        ("a.jpeg", {}, "jpg", "a.jpeg"),
        ("a.png", {}, "tiff", "a.tiff"),
        ("a.tif", {}, "tiff", "a.tif"),
        ("a.gif", {"frames": 3, "animated": True}, "png", "a.png"),
        ("a.jpg", {}, "webp", "a.webp"),
    ],
)
def test_suffixes(tmp_path: Path, name: str, facts: dict, file_format: str | None, expected: str) -> None:
    inputs = find_inputs(str(touch(tmp_path / "in", name)), str(tmp_path / "out"))
    found = {path: header(**facts) for path in inputs.pictures}
    assert names(inputs, found, file_format) == {name: expected}


def test_another_suffix_for_transparency_is_said(tmp_path: Path) -> None:
    inputs = find_inputs(str(touch(tmp_path / "in", "a.jpg")), str(tmp_path / "out"))
    (job,) = pair_outputs(inputs, {inputs.pictures[0]: header(transparent=True)})
    assert "written as .png" in job.note


def test_outputs_of_a_folder_never_collide(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.bmp", "a.ppm", "A.PNG.gif", "b.TIFF", "c.jpeg", "c.jfif", "c.jpg", "d.jfif")
    inputs = find_inputs(str(tmp_path), str(tmp_path.parent / "results"))
    targets = names(inputs)
    assert len({name.casefold() for name in targets.values()}) == len(targets) == 9
    for name in ("a.png", "b.TIFF", "c.jpeg", "c.jpg"):
        assert targets[name] == name
    assert targets["a.bmp"] == "a.bmp.png"
    assert targets["c.jfif"] == "c.jfif.jpg"
    assert targets["d.jfif"] == "d.jpg"
    for file_format in ("png", "jpg", "webp", "tiff"):
        assert len({name.casefold() for name in names(inputs, file_format=file_format).values()}) == 9
    assert names(inputs, file_format="png")["a.png"] == "a.png"


def test_strips_never_collide(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg", "b.png", "b.compare.png", "c.tif")
    jobs = pair_outputs(find_inputs(str(tmp_path), str(tmp_path.parent / "results")), {}, compare=True)
    outputs = [path.name for job in jobs for path in (job.target, job.compare) if path is not None]
    assert len(set(outputs)) == 10
    strips = {job.target.name: job.compare.name for job in jobs if job.compare is not None}
    assert strips["a.png"] == "a.png.compare.png"
    assert strips["a.jpg"] == "a.jpg.compare.png"
    assert strips["b.png"] == "b.png.compare.png"
    assert strips["c.tif"] == "c.compare.png"


def test_inputs_are_not_replaced(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", "b.bmp", "b.png")
    touch(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").hardlink_to(tmp_path / "in" / "b.bmp")  # not the picture it is the result of
    for target in ("in", "out"):
        with pytest.raises(AlloSR2Error, match="not an input"):
            pair_outputs(find_inputs(str(tmp_path / "in"), str(tmp_path / target)), {})


def test_results_may_lie_beside_the_inputs_under_other_names(tmp_path: Path) -> None:
    inputs = find_inputs(str(touch(tmp_path / "in", "a.png", "b.png")), str(tmp_path / "in"))
    assert names(inputs, file_format="jpg") == {"a.png": "a.jpg", "b.png": "b.jpg"}
