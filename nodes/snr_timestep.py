"""SNRTimestepEstimate: where on the flow a degraded picture stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from comfy_api.latest import io

from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.flow import t_from_rho
from ..allosr2_core.image.geometry import crop, resize_bicubic, split_alpha
from ..allosr2_core.options import T_METHODS
from ..allosr2_core.pipeline import prepare
from ..allosr2_core.start_time import TimestepEstimate, estimate_t
from .comfy_host.execution import Ticker
from .comfy_host.fit import check_fit
from .comfy_host.vae import encode, encode_ticks, without_patches
from .sockets import allosr2_input, number_input, vae_input

if TYPE_CHECKING:
    from torch import Tensor

    from ..allosr2_core.checkpoint.config import AlloSR2Config
    from ..allosr2_core.finish import Target
    from ..allosr2_core.layout import Layout
    from .comfy_host import VAE
    from .spec import Spec

AUTO = "auto"


class SNRTimestepEstimate(io.ComfyNode):
    """t* from the picture's signal-to-noise ratio in latent space."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SNRTimestepEstimate",
            display_name="SNR Timestep Estimate (AlloSR2)",
            category="AlloSR2",
            description="Estimates the time t* at which the flow is as noisy as this picture is degraded. "
            "Large t*: the picture is rebuilt more.",
            inputs=[
                io.Image.Input("image", tooltip="The low-resolution picture."),
                vae_input(),
                allosr2_input(),
                number_input(
                    "scale",
                    "How many times larger the result will be: the size of the map. The estimate is that of the "
                    "picture the model restores, which is the same at every scale.",
                ),
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
                io.Image.Output("map", display_name="map", tooltip="Where the picture is degraded: brighter is worse."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        vae: VAE,
        allosr2: Spec,
        scale: float,
        method: str,
        manual_t: float,
        hr_reference: Tensor | None = None,
    ) -> io.NodeOutput:
        if method == "paired" and hr_reference is None:
            raise AlloSR2Error("expected an image on hr_reference for the method 'paired'; nothing is connected")
        check_fit(allosr2, vae)
        config, method = allosr2.config, allosr2.config.t_method if method == AUTO else method
        target, z_hr = prepare(image.cpu(), config, scale=scale), None
        layout, pictures = target.layout, range(image.shape[0])
        ticks = len(pictures) * encode_ticks(layout, config)
        paired = method == "paired" and hr_reference is not None
        tick = Ticker(2 * ticks if paired else ticks)
        if paired:
            plain, truth = without_patches(vae), _reference(hr_reference.cpu().float(), target)
            z_hr = torch.cat([encode(plain, layout, layout.window(one), config, tick) for one in truth.split(1)])
        windows = (target.item(number).window() for number in pictures)
        z_lr = torch.cat([encode(vae, layout, window, config, tick) for window in windows])
        estimate = estimate_t(z_lr, config, allosr2.snr_head, method, z_hr=z_hr, manual=manual_t)
        return io.NodeOutput(
            float(estimate.t.mean()),
            float(estimate.snr_db.mean()),
            estimate.report,
            _picture(estimate, layout, config),
        )


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
    """The local t* as a grey picture [B, H, W, 3] of the result's size; white is the checkpoint's t_max."""
    t_B1hw = (t_from_rho(estimate.map) / config.t_max).clamp(0.0, 1.0)[:, None].float()
    size = layout.padded_height, layout.padded_width
    t_B1HW = F.interpolate(t_B1hw, size=size, mode="bilinear", align_corners=False)
    t_BHW1 = crop(t_B1HW.movedim(1, -1), layout.restored_height, layout.restored_width)
    return resize_bicubic(t_BHW1, layout.height, layout.width).repeat(1, 1, 1, 3)
