"""What the feature networks share: their interface, the blur before a stride, the layout of VGG16."""

import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from allosr2_core.errors import AlloSR2Error

VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
MIN_SIDE = 32  # px; below this the coarsest stages have no room for their padding


class FeatureNetwork(nn.Module):
    """Frozen network that turns an image into a list of feature maps."""

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """RGB B,3,H,W in [0, 1] -> feature maps from fine to coarse."""
        raise NotImplementedError

    def freeze(self) -> "FeatureNetwork":
        return self.eval().requires_grad_(False)


def check_image(x_BCHW: Tensor) -> None:
    """Raises AlloSR2Error unless x is B,3,H,W with sides of at least MIN_SIDE px."""
    if x_BCHW.ndim != 4 or x_BCHW.shape[1] != 3 or min(x_BCHW.shape[2:]) < MIN_SIDE:
        raise AlloSR2Error(f"expected an RGB batch B,3,H,W of at least {MIN_SIDE} px, got shape {tuple(x_BCHW.shape)}")


def unit_normalise(x_BCHW: Tensor, eps: float = 1e-10) -> Tensor:
    """Each position's channel vector scaled to length one, fp32 (LPIPS, Zhang et al. 2018, section 3)."""
    x = x_BCHW.float()
    # eps inside the root as well: the gradient of sqrt at an all-zero ReLU position would be infinite
    return x / (x.square().sum(dim=1, keepdim=True).add(eps * eps).sqrt() + eps)


def binomial() -> Tensor:
    """[1 2 1] x [1 2 1] / 16."""
    row = torch.tensor([1.0, 2.0, 1.0])
    return row[:, None] * row[None, :] / 16.0


def blurred(weight: Tensor) -> Tensor:
    """Convolution kernels [O, I, k, k] followed by [1 2 1] x [1 2 1] / 16: kernels [O, I, k + 2, k + 2]."""
    blur = binomial().to(weight).expand(1, 1, 3, 3)
    out, channels, kernel, _ = weight.shape
    planes = F.pad(weight.reshape(out * channels, 1, kernel, kernel), (2, 2, 2, 2))
    return F.conv2d(planes, blur).reshape(out, channels, kernel + 2, kernel + 2)
