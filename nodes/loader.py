"""AlloSR2Loader: a checkpoint as MODEL, VAE and ALLOSR2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..allosr2_core.checkpoint.format import load_checkpoint
from ..allosr2_core.errors import AlloSR2Error
from . import conditioning
from .comfy_host import adapter, embedded, files
from .node import Node, schema
from .sockets import AlloSR2, base_inputs, checkpoint_input
from .spec import Spec

if TYPE_CHECKING:
    from .comfy_host import VAE, ModelPatcher


class AlloSR2Loader(Node):
    """Reads a checkpoint strictly and hands out host objects."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "AlloSR2Loader",
            display_name="AlloSR2 Loader",
            description="Loads a checkpoint for AlloSR2's super resolution. The embedded one needs no download and "
            "runs on a CPU.",
            inputs=[
                checkpoint_input(files.checkpoint_names()),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much of what was learned for super-resolution is added to the generative prior and to "
                    "the VAE's encoder. 1 = as trained, 0 = the prior alone.",
                ),
                *base_inputs(),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The velocity network, with the checkpoint's weights patched in."),
                io.Vae.Output("VAE", tooltip="The autoencoder, its encoder tuned for degraded pictures."),
                AlloSR2.Output("ALLOSR2", tooltip="The checkpoint's settings and its SNR head."),
                io.Conditioning.Output(
                    "CONDITIONING",
                    tooltip="The empty prompt the checkpoint was trained with, for core samplers. AlloSR2 One-Step "
                    "Upscale uses it by itself.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, **_: object) -> tuple[str, int, int]:
        """Load again when the file behind the name was replaced."""
        return files.fingerprint(checkpoint)

    @classmethod
    def execute(
        cls, checkpoint: str, strength: float, model: ModelPatcher | None = None, vae: VAE | None = None
    ) -> io.NodeOutput:
        loaded = load_checkpoint(files.checkpoint_path(checkpoint))
        if loaded.config.adapter:
            model, vae = adapter.apply_adapter(loaded, checkpoint, model, vae, strength)
        elif model is not None or vae is not None:
            raise AlloSR2Error(f"{checkpoint!r} brings its own MODEL and VAE: disconnect the loader's inputs")
        else:
            model, vae = embedded.build_model(loaded, strength), embedded.build_vae(loaded, strength)
        spec = Spec(checkpoint, loaded.config, embedded.build_snr_head(loaded), loaded.null)
        return io.NodeOutput(model, vae, spec, conditioning.of_checkpoint(spec))
