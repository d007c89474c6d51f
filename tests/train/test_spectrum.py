"""Energy and correlation by bands of spatial frequency, and the command that tables them."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from tests.support.tiny_training import write_photos
from train.evaluate.methods import OURS, Method
from train.evaluate.peers import bicubic_x4
from train.metrics.spectrum import EDGES, SIDE, band_spectrum
from train.studies import spectrum as study

BANDS = len(EDGES) - 1


def waves(frequency: float, angle: float = 0.4, phase: float = 0.0, amplitude: float = 0.2) -> Tensor:
    """Grey plane waves, [1, 3, 96, 128]; frequency in cycles per pixel."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    along = math.sin(angle) * y + math.cos(angle) * x
    return (0.5 + amplitude * torch.sin(2 * math.pi * frequency * along + phase)).expand(1, 3, -1, -1)


def noise(seed: int) -> Tensor:
    return torch.rand(1, 1, 96, 128, generator=torch.Generator().manual_seed(seed)).expand(-1, 3, -1, -1)


def test_a_picture_has_its_own_energy_and_correlates_with_itself() -> None:
    same = band_spectrum(noise(1), noise(1))
    assert same.energy == pytest.approx([1.0] * BANDS) and same.correlation == pytest.approx([1.0] * BANDS)
    half = band_spectrum(0.5 * noise(1), noise(1))
    assert half.energy == pytest.approx([0.25] * BANDS) and half.correlation == pytest.approx([1.0] * BANDS)


def test_what_is_made_up_does_not_correlate() -> None:
    other = band_spectrum(noise(2), noise(1))
    assert max(map(abs, other.correlation)) < 0.15 and other.energy == pytest.approx([1.0] * BANDS, rel=0.35)
    assert band_spectrum(1 - noise(1), noise(1)).correlation == pytest.approx([-1.0] * BANDS)


@pytest.mark.parametrize("band", range(BANDS))
def test_a_wave_is_found_in_its_band_at_every_angle(band: int) -> None:
    frequency = (EDGES[band] + EDGES[band + 1]) / 2
    for angle in (0.0, 0.4, math.pi / 2):
        both = noise(1) * 0.1 + waves(frequency, angle) - 0.05
        added = band_spectrum(both, noise(1) * 0.1)
        assert added.energy.index(max(added.energy)) == band and added.energy[band] > 5
        assert all(value == pytest.approx(1.0, rel=0.1) for i, value in enumerate(added.energy) if abs(i - band) > 1)


def test_a_wave_out_of_step_does_not_correlate() -> None:
    quarter = band_spectrum(waves(0.125, phase=math.pi / 2), waves(0.125))
    assert abs(quarter.correlation[1]) < 0.02 and quarter.energy[1] == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(
    "shapes",
    [((1, 3, 64, 64), (1, 3, 64, 72)), ((1, 3, SIDE - 1, 80), (1, 3, SIDE - 1, 80)), ((2, 3, 64, 64), (2, 3, 64, 64))],
)
def test_other_shapes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(AlloSR2Error, match="expected two pictures of one size"):
        band_spectrum(*(torch.zeros(shape) for shape in shapes))


def test_a_split_without_usable_photographs_is_refused(tmp_path: Path) -> None:
    write_photos(tmp_path, "test", [(40, 100)])
    with pytest.raises(AlloSR2Error, match="expected photographs of 64 px or more in test; there are none"):
        study.main(["--root", str(tmp_path / "data"), "--methods", "bicubic"])


def test_the_command_tables_methods_by_strength(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path, "test", [(96, 128), (130, 100), (40, 100)])
    made = []

    def method(name: str, root: Path, checkpoint: Path | None) -> Method:
        def restore(lr: Tensor) -> Tensor:
            made.append(name)
            return bicubic_x4(lr).clamp(0, 1) * (0.5 if name == OURS else 1.0)

        return Method(name, name, restore)

    monkeypatch.setattr(study, "load_method", method)
    arguments = ["--root", str(tmp_path / "data"), "--methods", "bicubic,allosr2", "--strength", "mild"]
    assert study.main(arguments) == 0
    head, rule, *table = capsys.readouterr().out.splitlines()
    assert head.count("px") == BANDS and rule.count("---:|") == BANDS
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [row[:3] for row in cells] == [
        ["mild", name, what] for name in ("bicubic", "allosr2") for what in ("energy", "correlation")
    ]
    bicubic, ours = ([float(value) for value in cells[i][3:]] for i in (0, 2))
    assert 0.2 < bicubic[0] < 1.5 and ours[0] == pytest.approx(bicubic[0] / 4, abs=0.01)
    assert cells[1][3] == cells[3][3] and float(cells[1][3]) > 0.3
    assert made == ["bicubic"] * 2 + [OURS] * 2  # the photograph of 40 px is too small
    assert study.main(arguments) == 0 and len(made) == 4  # stored
