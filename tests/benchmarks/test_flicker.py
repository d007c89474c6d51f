"""What docs/performance.md says of the frames of a video, on fewer and smaller ones."""

from collections.abc import Mapping

import pytest

from benchmarks import flicker


@pytest.fixture(scope="module")
def found() -> Mapping[str, Mapping[str, float]]:
    """The figures of each row."""
    return {row.name: row.figures or {} for row in flicker.run(quick=True)}


@pytest.mark.parametrize("kind", flicker.DAMAGE)
def test_a_still_scene_stays_still(found: Mapping[str, Mapping[str, float]], kind: str) -> None:
    enlarged, own, one, turns = (
        found[f"{kind}: {way}"]
        for way in ("enlarged", "t of each frame", "one t", "t in turns {} and {}".format(*flicker.JUMPS))
    )
    assert one["apart"] < 1.1 * enlarged["apart"]  # no more than the frames' own noise
    assert one["brightness"] < 0.25  # of 255
    assert one["apart"] == pytest.approx(own["apart"], rel=0.02)  # predicted times of one scene are near each other
    assert 0.0 < own["t_range"] < 0.05
    assert turns["apart"] > 1.05 * one["apart"]  # times that jump would be seen
    assert turns["crispness"] > 3.0 * one["crispness"]
