"""The pack's own socket type, and the inputs that several nodes share: one definition, so that they stay alike."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..allosr2_core.errors import AlloSR2Error
from ..allosr2_core.options import DEFAULTS, OPTIONS, number_type

AlloSR2 = io.Custom("ALLOSR2")
BY_SCALE, BY_LONG_EDGE = "scale", "long edge"


def vae_input(lazy: bool | None = None) -> io.Vae.Input:
    """The loader's VAE."""
    return io.Vae.Input("vae", lazy=lazy, tooltip="The VAE of the AlloSR2 Loader.")


def allosr2_input(lazy: bool | None = None) -> AlloSR2.Input:
    """The loader's settings."""
    return AlloSR2.Input("allosr2", lazy=lazy, tooltip="The ALLOSR2 of the AlloSR2 Loader.")


def checkpoint_input(names: list[str]) -> io.Combo.Input:
    """A checkpoint, the first of the names at first."""
    return io.Combo.Input(
        "checkpoint",
        options=names,
        default=names[0],
        tooltip="The embedded checkpoint, or a .safetensors file from models/allosr2.",
    )


def base_inputs() -> list[io.Model.Input | io.Vae.Input]:
    """The MODEL and VAE that an adapter runs on."""
    model = io.Model.Input(
        "model",
        optional=True,
        tooltip="For an adapter: the base it was trained on, e.g. FLUX.1-dev from Load Diffusion Model, in any weight "
        "type. Leave it unconnected for the embedded checkpoint.",
    )
    vae = io.Vae.Input(
        "vae",
        optional=True,
        tooltip="For an adapter: the VAE of its base, from Load VAE. Leave it unconnected for the embedded checkpoint.",
    )
    return [model, vae]


def number_input(name: str, tooltip: str | None = None) -> io.Float.Input | io.Int.Input:
    """A number of `UpscaleOptions` as an input, with default and slider; `tooltip`: where it means less here."""
    option = OPTIONS[name]
    if option.slider is None:
        raise ValueError(f"expected an option with a slider; {name!r} has none")
    of = number_type(name)
    limits = {"min": of(option.slider.least), "max": of(option.slider.most), "step": of(option.slider.step)}
    kind = io.Int.Input if of is int else io.Float.Input
    return kind(option.node_name or name, default=of(option.start(name)), tooltip=tooltip or option.tooltip, **limits)


def choice_input(name: str) -> io.Combo.Input:
    """A choice of `UpscaleOptions` as an input."""
    option = OPTIONS[name]
    return io.Combo.Input(name, options=list(option.choices), default=DEFAULTS[name], tooltip=option.tooltip)


def switch_input(name: str) -> io.Boolean.Input:
    """A switch of `UpscaleOptions` as an optional input."""
    option = OPTIONS[name]
    return io.Boolean.Input(option.node_name or name, default=DEFAULTS[name], optional=True, tooltip=option.tooltip)


def time_input() -> io.Float.Input:
    """The time t*, as another node gives it."""
    return io.Float.Input("t", optional=True, force_input=True, tooltip=OPTIONS["t"].tooltip)


def mask_input(note: str = "") -> io.Mask.Input:
    """Where to restore. note: what holds for one node only."""
    return io.Mask.Input(
        "mask",
        optional=True,
        tooltip="Where to restore: white takes the restored picture, black keeps the plain enlargement, grey mixes. Of "
        f"the image's size; its edge is softened over one input pixel.{note}",
    )


def size_inputs() -> list[io.Combo.Input | io.Float.Input | io.Int.Input]:
    """The size of the result: what it is given by, and the two numbers, one of which counts."""
    by = io.Combo.Input(
        "size_by",
        options=[BY_SCALE, BY_LONG_EDGE],
        default=BY_SCALE,
        tooltip="Which of the two numbers below gives the result's size. The other one is not used.",
    )
    return [by, number_input("scale"), number_input("long_edge")]


def size(size_by: str, scale: float, long_edge: int) -> dict[str, Any]:
    """The values of `size_inputs` as `Layout.of` takes them: one of the two numbers."""
    if size_by not in (BY_SCALE, BY_LONG_EDGE):
        raise AlloSR2Error(f"expected size_by to be {BY_SCALE!r} or {BY_LONG_EDGE!r}; got {size_by!r}")
    by_edge = size_by == BY_LONG_EDGE
    return {"scale": None if by_edge else scale, "long_edge": long_edge if by_edge else None}
