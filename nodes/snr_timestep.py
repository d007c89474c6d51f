"""SNRTimestepEstimate: where on the flow a degraded picture stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from comfy_api.latest import io, ui

from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.flow import t_from_rho
from ..allosr2_core.image.geometry import crop, resize_bicubic, split_alpha
from ..allosr2_core.options import T_METHODS
from ..allosr2_core.pipeline import prepare
from ..allosr2_core.start_time import TimestepEstimate, estimate_t
from .comfy_host.execution import Ticker, show_text
from .comfy_host.fit import check_fit
from .comfy_host.vae import encode, encode_ticks, without_patches
from .node import Node, schema
from .sockets import allosr2_input, vae_input
from .spec import head_ticks
from .summary import times

if TYPE_CHECKING:
    from torch import Tensor

    from ..allosr2_core.checkpoint.config import AlloSR2Config
    from ..allosr2_core.finish import Target
    from ..allosr2_core.layout import Layout
    from .comfy_host import VAE
    from .spec import Spec

AUTO = "auto"


class SNRTimestepEstimate(Node):
    """t* from the picture's signal-to-noise ratio in latent space."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SNRTimestepEstimate",
            words=("allosr2", "noise", "quality", "damage", "timestep"),
            display_name="SNR Timestep Estimate (AlloSR2)",
            description="Estimates how degraded a picture is: the time t* at which the flow is as noisy. "
            "Large t*: the picture is rebuilt more.",
            inputs=[
                io.Image.Input("image", lazy=True, tooltip="The low-resolution picture."),
                vae_input(lazy=True),
                allosr2_input(lazy=True),
                io.Combo.Input(
                    "method",
                    options=[AUTO, *T_METHODS],
                    default=AUTO,
                    tooltip="auto: what the checkpoint recommends. "
                    + " ".join(f"{method}: {what}." for method, what in T_METHODS.items()),
                ),
                io.Float.Input(
                    "manual_t",
                    default=0.2,
                    min=0.01,
                    max=0.99,
                    step=0.01,
                    tooltip="t* for the method 'manual'; unused otherwise.",
                ),
                io.Image.Input(
                    "hr_reference",
                    optional=True,
                    lazy=True,
                    tooltip="The true high-resolution picture, for the method 'paired' (measurements). Resized to the "
                    "size the checkpoint restores at (4 times the input) if it is not of that size.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "t", display_name="t", tooltip="t*, for the upscale node. For several pictures their mean."
                ),
                io.Float.Output(
                    "snr_db",
                    display_name="snr_db",
                    tooltip="Signal-to-noise ratio of the latents in decibels, likewise.",
                ),
                io.String.Output("report", display_name="report", tooltip="The estimate in words, one line a picture."),
                io.Image.Output(
                    "map",
                    display_name="map",
                    tooltip="Where much has to be rebuilt: brighter is more. It has the picture's size.",
                ),
            ],
        )

    @classmethod
    def check_lazy_status(cls, method: str, **inputs: object) -> list[str]:
        """What is to be made before this node: the reference only where it is looked at, and nothing in vain."""
        if method not in (AUTO, *T_METHODS):
            raise AlloSR2Error(f"expected method to be one of {', '.join((AUTO, *T_METHODS))}; got {method!r}")
        if method == "paired" and "hr_reference" not in inputs:
            raise AlloSR2Error("expected an image on hr_reference for the method 'paired'; nothing is connected")
        needed = ("image", "vae", "allosr2", *(("hr_reference",) if method == "paired" else ()))
        return [name for name in needed if inputs.get(name) is None]

    @classmethod
    def execute(
        cls,
        image: Tensor,
        vae: VAE,
        allosr2: Spec,
        method: str,
        manual_t: float,
        hr_reference: Tensor | None = None,
    ) -> io.NodeOutput:
        check_fit(allosr2, vae)
        config, method = allosr2.config, allosr2.config.t_method if method == AUTO else method
        target, z_hr = prepare(image.cpu(), config, scale=config.scale), None
        layout, pictures = target.layout, range(image.shape[0])
        encodes = encode_ticks(layout, config) * (2 if method == "paired" else 1)
        tick = Ticker(len(pictures) * (encodes + head_ticks(allosr2, layout, method)))
        if method == "paired" and hr_reference is not None:
            plain, truth = without_patches(vae), _reference(hr_reference.cpu().float(), target)
            z_hr = torch.cat([encode(plain, layout, layout.window(one), config, tick) for one in truth.split(1)])
        windows = (target.item(number).window() for number in pictures)
        z_lr = torch.cat([encode(vae, layout, window, config, tick) for window in windows])
        estimate = estimate_t(z_lr, config, allosr2.snr_head, method, z_hr=z_hr, manual=manual_t, tick=tick)
        text, shown = times(estimate.t, config.t_star), _picture(estimate, layout, config)
        show_text(text)
        values = float(estimate.t.mean()), float(estimate.snr_db.mean()), estimate.report, shown
        return io.NodeOutput(*values, ui=ui.PreviewText(text).as_dict() | ui.PreviewImage(shown, cls=cls).as_dict())


def _reference(image: Tensor, target: Target) -> Tensor:
    """The true picture at the restored picture's size, repeated over the batch if there is only one."""
    if not bool(torch.isfinite(image).all()):
        raise AlloSR2Error("expected finite pixels on hr_reference; it has NaN or infinite values")
    rgb, _ = split_alpha(image)
    batch, layout = target.source.shape[0], target.layout
    if rgb.shape[0] not in (1, batch):
        raise AlloSR2Error(f"expected 1 or {batch} images on hr_reference; got {rgb.shape[0]}")
    return resize_bicubic(rgb, layout.restored_height, layout.restored_width).expand(batch, -1, -1, -1)


def _picture(estimate: TimestepEstimate, layout: Layout, config: AlloSR2Config) -> Tensor:
    """The local t* as a grey picture [B, H, W, 3] of the input's size; white is the checkpoint's t_max."""
    t_B1hw = (t_from_rho(estimate.map) / config.t_max).clamp(0.0, 1.0)[:, None].float()
    size = layout.padded_height, layout.padded_width
    t_B1HW = F.interpolate(t_B1hw, size=size, mode="bilinear", align_corners=False)
    t_BHW1 = crop(t_B1HW.movedim(1, -1), layout.restored_height, layout.restored_width)
    return resize_bicubic(t_BHW1, layout.input_height, layout.input_width).repeat(1, 1, 1, 3)
