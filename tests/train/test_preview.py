"""Previews: under autocast as the steps are, what does not change made once, features once for each network."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from allosr2_core.losses.perceptual import feature_distance, texture_distance
from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_photos
from tests.support.toy_stage import Toy
from train.__main__ import main
from train.config import Config
from train.config_file import from_table
from train.data.photo_files import decode_all
from train.loop.loop import run_stage
from train.loop.preview import Preview
from train.loop.rng import BatchRandom
from train.perceptual import distances as registry
from train.perceptual.distances import DISTANCES, NETWORKS, load_distances
from train.perceptual.networks import FeatureNetwork
from train.stages.sr import SRStage

SIZES = [(80, 70), (64, 100)]


class Blocks(FeatureNetwork):
    """In the place of a network whose weights would have to be fetched: means of blocks of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[int] = Counter()
        """How often a picture was looked at, by its memory."""

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        self.seen[x_BCHW.data_ptr()] += 1
        return [torch.nn.functional.avg_pool2d(x_BCHW, side) for side in (2, 4)]

    def distance(self, maps_x: list[Tensor], maps_y: list[Tensor]) -> Tensor:
        return feature_distance(maps_x, maps_y)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("preview")
    write_photos(root, "train", [(100, 140)])
    write_photos(root, "val", SIZES)
    config = root / "tiny.toml"
    config.write_text(to_toml(tiny_table(root)), encoding="utf-8")
    assert run_autoencoder(config) == main(["prior", "--config", str(config)]) == 0
    return root


def stage_with(root: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> SRStage:
    monkeypatch.setattr(registry, "NETWORKS", dict.fromkeys(NETWORKS, lambda root: Blocks()))
    table = tiny_table(root)
    table["stages"]["sr"]["perceptual"] = names
    table["stages"]["sr"]["weights"]["perceptual"] = 1.0
    return SRStage(from_table(Config, table, "x"))


def networks_of(stage: SRStage) -> list[Blocks]:
    return list({id(d.network): d.network for d in stage.by_name.values()}.values())  # type: ignore[misc]


def test_distances_of_one_network_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(
        registry, "NETWORKS", {name: lambda root, name=name: loaded.append(name) or Blocks() for name in NETWORKS}
    )
    found = load_distances(["vgg_l2", "texture_vgg_l2", "hed_smooth", "texture_hed_smooth", "vgg_l2"], tmp_path)
    assert list(found) == ["vgg_l2", "texture_vgg_l2", "hed_smooth", "texture_hed_smooth"]
    assert loaded == ["vgg_l2", "hed_smooth"]
    assert found["vgg_l2"].network is found["texture_vgg_l2"].network
    assert found["texture_vgg_l2"].distance is texture_distance
    assert {network for network, _ in DISTANCES.values()} == NETWORKS.keys()


def test_a_preview_looks_at_what_does_not_change_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first preview four pictures of each pair, in the second the two results, by each network once."""
    names = ["vgg_l2", "texture_vgg_l2", "hed_smooth", "vgg_l2"]
    stage = stage_with(root, names, monkeypatch)
    assert len(stage.distances) == 4 and len(networks_of(stage)) == 2
    encoded: list[Tensor] = []
    original = stage.autoencoder.copy.encode
    monkeypatch.setattr(stage.autoencoder.copy, "encode", lambda x: encoded.append(x) or original(x))
    first = stage.preview()
    assert [sum(network.seen.values()) for network in networks_of(stage)] == [4 * len(SIZES)] * 2
    assert len(encoded) == len(SIZES)
    second = stage.preview()
    assert [sum(network.seen.values()) for network in networks_of(stage)] == [6 * len(SIZES)] * 2
    assert len(encoded) == len(SIZES)
    assert second.figures == first.figures
    for name in dict.fromkeys(names):
        assert {name, f"{name}_bicubic", f"{name}_paired"} < first.figures.keys()


def test_features_of_many_pairs_are_not_all_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = stage_with(root, ["vgg_l2"], monkeypatch)
    figures = kept.preview().figures
    monkeypatch.setattr("train.stages.sr.KEPT", 1)
    few = stage_with(root, ["vgg_l2"], monkeypatch)
    assert few.preview().figures == figures
    assert [len(pair.features) for pair in few.pairs()] == [1, 0]
    assert [len(pair.features) for pair in kept.pairs()] == [1, 1]


def test_every_network_has_its_own_line_in_the_log(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_with(root, ["vgg_l2", "texture_hed_smooth"], monkeypatch)
    batch = torch.utils.data.default_collate([stage.dataset(0)[i] for i in range(4)])
    for step, name in enumerate(stage.stage.perceptual):
        terms = stage(batch, step, BatchRandom.seeded(step))
        assert {key for key in terms if key.startswith("perceptual")} == {"perceptual", f"perceptual_{name}"}
        assert torch.equal(terms[f"perceptual_{name}"], terms["perceptual"])
        assert f"perceptual_{name}" not in stage.weights  # charged once


class Remembers(Toy):
    """Whether it is asked for previews under autocast."""

    def preview(self) -> Preview:
        self.under = torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()
        return super().preview()


def test_a_preview_runs_in_the_type_of_the_steps(tmp_path: Path) -> None:
    from accelerate.state import AcceleratorState

    table = tiny_table(tmp_path)
    for precision, expected in (("no", False), ("bf16", True)):
        AcceleratorState._reset_state(reset_partial_state=True)
        table["run"] |= {"precision": precision, "dir": str(tmp_path / precision)}
        config = from_table(Config, table, "x")
        stage = Remembers(config)
        run_stage(stage, config)
        assert stage.under[0] is expected
    AcceleratorState._reset_state(reset_partial_state=True)


def test_figures_under_autocast_are_those_of_fp32(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks compute in bf16; what is measured of their pictures stays exact."""
    stage = stage_with(root, ["vgg_l2"], monkeypatch)
    exact = stage.preview().figures
    other = stage_with(root, ["vgg_l2"], monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = other.preview()
    assert rough.figures.keys() == exact.keys()
    for name in ("psnr", "psnr_paired", "psnr_4steps", "psnr_decode"):
        assert rough.figures[name] == pytest.approx(exact[name], abs=0.2), name
    for name in ("psnr_bicubic", "repeat4_hr", "checker_hr", "lattice4_hr"):
        assert rough.figures[name] == exact[name], name
    assert all(picture.dtype == torch.float32 for row in rough.rows for picture in row)


def test_constants_are_those_of_the_photographs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_with(root, ["vgg_l2"], monkeypatch)
    photos = decode_all(sorted((root / "data" / "photos" / "val").iterdir()), root / "data" / "cache")
    for pair, photo in zip(stage.pairs(), photos.values(), strict=True):
        side = min(extent // 32 * 32 for extent in photo.shape[:2])
        assert pair.hr.shape == pair.up.shape == (1, 3, side, side)
        assert torch.equal(pair.z_hr, stage.encode_hr(pair.hr * 2 - 1))
