"""The pack's own socket type, and the inputs that several nodes share: one definition, so that they stay alike."""

from comfy_api.latest import io

from ..allosr2_core.options import DEFAULTS, OPTIONS, number_type

AlloSR2 = io.Custom("ALLOSR2")


def vae_input() -> io.Vae.Input:
    """The loader's VAE."""
    return io.Vae.Input("vae", tooltip="The VAE of the AlloSR2 Loader.")


def allosr2_input() -> AlloSR2.Input:
    """The loader's settings."""
    return AlloSR2.Input("allosr2", tooltip="The ALLOSR2 of the AlloSR2 Loader.")


def number_input(name: str, tooltip: str | None = None) -> io.Float.Input | io.Int.Input:
    """A number of `UpscaleOptions` as an input, with default and slider; `tooltip`: where it means less here."""
    option = OPTIONS[name]
    if option.slider is None:
        raise ValueError(f"expected an option with a slider; {name!r} has none")
    of = number_type(name)
    limits = {"min": of(option.slider.least), "max": of(option.slider.most), "step": of(option.slider.step)}
    kind = io.Int.Input if of is int else io.Float.Input
    return kind(option.node_name or name, default=of(DEFAULTS[name] or 0), tooltip=tooltip or option.tooltip, **limits)


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
