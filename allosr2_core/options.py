"""The options of an upscale, each said once: meaning, range, neutral value.

The nodes' inputs, the command line, the help pages and evaluation are made from `UpscaleOptions`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import AlloSR2Error, shown

T_METHODS: Mapping[str, str] = {
    "calibrated": "the checkpoint's average over its training pairs",
    "predicted": "a small network looks at this picture",
    "paired": "exact, from the true high-resolution picture",
    "manual": "the value below",
}
"""How the time t* of a picture may be found, and what that is."""
T_WORDS = ("predicted", "calibrated")
"""Those of them that need nothing besides the picture and the checkpoint: what a checkpoint may recommend."""
COLOR_METHODS: Mapping[str, str] = {
    "none": "leave it",
    "wavelet": "the input's low frequencies",
    "adain": "mean and spread of each RGB channel",
    "lab": "the same in CIELAB",
}
"""Whose colours a result gets, and what is taken of them."""
DEFAULT_OVERLAP = 64
"""Overlap of neighbouring tiles, px of the restored picture: enough to hide seams (`python -m benchmarks seams`)."""


@dataclass(frozen=True)
class Slider:
    """What a node offers of a number: a part of its range, in steps."""

    least: float
    most: float
    step: float
    start: float | None = None
    """What it shows at first; None: the option's own default."""


@dataclass(frozen=True)
class Option:
    """What there is to say about one field of `UpscaleOptions`."""

    meaning: str
    """In a sentence or two, wherever the option is offered."""
    node_note: str = ""
    """What only holds, or is only understood, on the canvas."""
    command_note: str = ""
    """Likewise on the command line."""
    details: str = ""
    """What the help page says besides."""
    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    """Whether `least` itself is too little."""
    neutral: object = None
    """The value that changes nothing, or that leaves the choice to the checkpoint."""
    choices: tuple[str, ...] = ()
    unit: str = ""
    slider: Slider | None = None
    node_name: str = ""
    """Of the node's input, where it is not the field's."""
    flag: str = ""
    """Of the command line, where it is not the field's name."""

    @property
    def tooltip(self) -> str:
        """The text on a node."""
        return " ".join(part for part in (self.meaning, self.node_note) if part)

    @property
    def help_page(self) -> str:
        """The text on a node's help page."""
        return " ".join(part for part in (self.meaning, self.node_note, self.details) if part)

    @property
    def help(self) -> str:
        """The text on the command line."""
        return " ".join(part for part in (self.meaning, self.command_note) if part)

    @property
    def limits(self) -> str:
        """The range in words, as in "expected a number of 0 or more"; "" without one."""
        if self.least > -math.inf and self.most < math.inf:
            return f"between {self.least:g} and {self.most:g}" if self.above else f"of {self.least:g} to {self.most:g}"
        if self.least > -math.inf:
            return f"above {self.least:g}" if self.above else f"of {self.least:g} or more"
        return ""

    def start(self, name: str) -> float:
        """What the slider of the field `name` shows at first."""
        shown = None if self.slider is None else self.slider.start
        return DEFAULTS[name] if shown is None else shown

    def allows(self, value: float) -> bool:
        """Whether a number is within the range; where `least` is excluded, so is a finite `most`."""
        try:
            if not math.isfinite(value):
                return False
        except OverflowError:  # a whole number that no float reaches
            return False
        return self.least < value < self.most if self.above else self.least <= value <= self.most


def _option(default: object, option: Option) -> typing.Any:  # noqa: ANN401 - dataclasses.field's own type
    return field(default=default, metadata={"option": option})


@dataclass(frozen=True)
class UpscaleOptions:
    """What `Pipeline.upscale` does to every picture."""

    scale: float | None = _option(
        4.0,
        Option(
            meaning="How many times larger each side becomes, rounded to whole pixels.",
            node_note="The picture is restored at the factor the checkpoint was trained for, 4, and then brought to "
            "this one.",
            details="Below 4 it takes the time and memory of 4. Above 4 nothing is invented beyond the 4x picture.",
            least=0.0,
            above=True,
            slider=Slider(1.0, 8.0, 0.01),
        ),
    )
    """Factor above 0; unused, and best None, when long_edge is given."""
    long_edge: int | None = _option(
        None,
        Option(
            meaning="Length of the result's longer side in pixels, instead of scale.",
            node_note="Where that is less than the picture has, the picture is reduced first.",
            least=1,
            unit="PX",
            slider=Slider(1, 16384, 1, start=3840),
        ),
    )
    t: float | str | None = _option(
        None,
        Option(
            meaning="Time t* to start from, 0..1: lower stays closer to the input.",
            node_note="Usually from SNR Timestep Estimate. Unconnected: each picture gets its own by the checkpoint's "
            "recommended method.",
            details="Higher rebuilds more.",
            command_note="Or 'predicted' from each picture, 'calibrated' for the checkpoint's average (default: what "
            "the checkpoint recommends).",
            least=0.0,
            most=1.0,
            above=True,
            choices=T_WORDS,
            unit="T",
        ),
    )
    realism: float = _option(
        1.0,
        Option(
            meaning="How far to go from the enlarged input (0) to the model's picture (1, as trained). Above 1 "
            "exaggerates.",
            details="If faces or letters change too much, lower it. Below 1 some of the input's noise stays.",
            least=0.0,
            most=100.0,  # far beyond it nothing of a picture is left, and values are no numbers any more
            neutral=1.0,
            slider=Slider(0.0, 2.0, 0.05),
        ),
    )
    tile: int = _option(
        0,
        Option(
            meaning="Side of the pieces the model sees, in pixels of the 4x picture. 0 = what the checkpoint "
            "recommends.",
            node_note="Where memory runs out, half of that. Smaller saves memory; larger lets it see more of the "
            "picture.",
            details="The embedded checkpoint takes pieces up to a quarter larger where fewer then do. A piece knows "
            "nothing beyond its edge, so another size gives another picture, without visible seams: at 800 px 42 to 49 "
            "dB from that of one piece.",
            least=0,
            neutral=0,
            unit="PX",
            slider=Slider(0, 8192, 16),
        ),
    )
    overlap: int = _option(
        DEFAULT_OVERLAP,
        Option(
            meaning="How many pixels of the 4x picture neighbouring pieces share; they are blended there.",
            node_note="64 hides seams.",
            details="At most half a tile is used.",
            least=0,
            neutral=DEFAULT_OVERLAP,
            unit="PX",
            slider=Slider(0, 1024, 8),
        ),
    )
    color: str = _option(
        "none",
        Option(
            meaning="Give the result the colours of the input, once over the whole picture. "
            + " ".join(f"{name}: {what}." for name, what in COLOR_METHODS.items()),
            details="wavelet follows the input's colours from place to place, the other two only as a whole.",
            neutral="none",
            choices=tuple(COLOR_METHODS),
        ),
    )
    shifted: bool = _option(
        False,
        Option(
            meaning="Takes the step a second time on a grid shifted by half a patch and averages both: twice the time, "
            "for when a fine regular pattern shows.",
            details="It smooths a little of everything else.",
            neutral=False,
            node_name="shifted_grid",
        ),
    )

    @property
    def size(self) -> dict[str, typing.Any]:
        """`scale` and `long_edge` as `Layout.of` takes them: one of the two."""
        return {"scale": None if self.long_edge else self.scale, "long_edge": self.long_edge}


OPTIONS: Mapping[str, Option] = {f.name: f.metadata["option"] for f in dataclasses.fields(UpscaleOptions)}
"""By the names of the fields."""
DEFAULTS: Mapping[str, typing.Any] = {f.name: f.default for f in dataclasses.fields(UpscaleOptions)}


def number_type(name: str) -> type:
    """float, int, str or bool: what the values of a field are, besides None and words."""
    hint = typing.get_type_hints(UpscaleOptions)[name]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next(kind for kind in kinds if kind is not types.NoneType)


def check(name: str, value: object) -> None:
    """AlloSR2Error unless a value is one of its option's words, or a number within its range; None leaves it open."""
    option, numbers = OPTIONS[name], number_type(name) is not str
    if isinstance(value, str):
        allowed = value in option.choices
    else:
        allowed = value is None or (numbers and isinstance(value, (int, float)) and option.allows(value))
    if not allowed:
        wanted = [f"to be a number {option.limits}".strip()] if numbers else []
        wanted += [f"to be one of {', '.join(option.choices)}"] if option.choices else []
        raise AlloSR2Error(f"expected {name} {' or '.join(wanted)}; got {shown(value)}")


def check_options(options: UpscaleOptions) -> None:
    """`check` of every option, before any work, whichever part would come to it."""
    for name in OPTIONS:
        check(name, getattr(options, name))
