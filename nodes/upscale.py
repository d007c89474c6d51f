"""AlloSR2Upscale: one node from picture to picture, made of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.options import DEFAULTS
from .comfy_host import files
from .comfy_host.execution import GraphBuilder, number_in_list
from .node import Node, schema
from .sockets import base_inputs, checkpoint_input, choice_input, mask_input, number_input, size_inputs, time_input

if TYPE_CHECKING:
    from torch import Tensor

    from .comfy_host import VAE, ModelPatcher

Link = list[Any]
"""Where the value of an input comes from: [id of a node, number of its output]."""


class AlloSR2Upscale(Node):
    """Puts AlloSR2 Loader, One-Step Upscale and Tiled Decode in its place when it runs.

    So the host keeps what each of them made, shows their progress on this node and stops each of them. A change of
    `realism` or `color` decodes again and does no more; the networks stay loaded between prompts.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "AlloSR2Upscale",
            display_name="AlloSR2 Upscale & Restore",
            description="Upscale and restore photographs: takes away noise, blur and JPEG blocks (denoise, sharpen, "
            "enhance) and enlarges the picture (super resolution). The embedded checkpoint runs on a CPU.",
            inputs=[
                io.Image.Input("image", tooltip="Photographs of any size; an alpha channel is kept."),
                *size_inputs(),
                number_input("realism"),
                choice_input("color"),
                checkpoint_input(files.checkpoint_names()),
                mask_input(),
                time_input(),
                *base_inputs(),
            ],
            outputs=[io.Image.Output("IMAGE", tooltip="The finished picture; RGBA if the input had an alpha channel.")],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            enable_expand=True,
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, **_: object) -> tuple[str, int, int]:
        """Work again when the file behind the checkpoint's name was replaced."""
        return files.fingerprint(checkpoint)

    @classmethod
    def execute(
        cls,
        image: Tensor,
        size_by: str,
        scale: float,
        long_edge: int,
        realism: float,
        color: str,
        checkpoint: str,
        mask: Tensor | None = None,
        t: float | None = None,
        model: ModelPatcher | None = None,
        vae: VAE | None = None,
    ) -> io.NodeOutput:
        links = _links(cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"])
        if "image" not in links:
            raise AlloSR2Error("expected a link to a picture on image; got a value")
        graph = GraphBuilder()

        def picked(name: str) -> dict[str, Link]:
            """The link to the value of this call, where the input is connected; the input may be given a list."""
            if name not in links:
                return {}
            one = graph.node("AlloSR2PickFromList", id=name, values=links[name], number=number_in_list())
            return {name: one.out(0)}

        base = {name: links[name] for name in ("model", "vae") if name in links}
        loader = graph.node("AlloSR2Loader", id="loader", checkpoint=checkpoint, strength=1.0, **base)
        step = graph.node(
            "AlloSR2OneStepUpscale",
            id="step",
            **{name: loader.out(number) for number, name in enumerate(("model", "vae", "allosr2"))},
            **{"size_by": size_by, "scale": scale, "long_edge": long_edge},
            **{name: DEFAULTS[name] for name in ("tile", "overlap")},
            **picked("image"),
            **picked("mask"),
            **picked("t"),
        )
        decode = graph.node(
            "TiledDecode",
            id="decode",
            vae=loader.out(1),
            latent=step.out(0),
            realism=realism,
            color=color,
            tile=DEFAULTS["tile"],
            mode="exact",
        )
        return io.NodeOutput(decode.out(0), expand=graph.finalize())


def _links(inputs: dict[str, Any]) -> dict[str, Link]:
    """Those inputs of a prompt's node that are connected."""
    return {name: value for name, value in inputs.items() if isinstance(value, list)}
