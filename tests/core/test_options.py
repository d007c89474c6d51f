"""The options of an upscale: said once, and offered alike by the command line, the help pages and the nodes."""

import dataclasses
import math

import pytest

from allosr2_core.cli.main import build_parser
from allosr2_core.cli.option_arguments import options_of
from allosr2_core.errors import AlloSR2Error
from allosr2_core.options import DEFAULTS, OPTIONS, T_METHODS, T_WORDS, UpscaleOptions, check, number_type
from tools import help_pages


def parsed(*arguments: object) -> UpscaleOptions:
    return options_of(build_parser().parse_args(["upscale", "in.png", "out.png", *map(str, arguments)]))


def test_every_field_says_what_it_means() -> None:
    for field in dataclasses.fields(UpscaleOptions):
        option = OPTIONS[field.name]
        assert option.meaning.endswith((".", ")")) and len(option.meaning) > 20
        if option.slider is not None:
            kind = number_type(field.name)
            assert kind in (int, float) and option.slider.least < option.slider.most
            assert option.allows(option.slider.most) and kind(option.slider.step) > 0
        if option.neutral is not None:
            assert field.default == option.neutral


def test_the_command_line_offers_every_option_with_its_text() -> None:
    (upscale,) = [a.choices["upscale"] for a in build_parser()._actions if isinstance(a.choices, dict)]
    for name, option in OPTIONS.items():
        action = upscale._option_string_actions[f"--{name.replace('_', '-')}"]
        assert str(action.help).replace("%%", "%").startswith(option.help)


def test_without_arguments_everything_has_its_default() -> None:
    assert parsed() == UpscaleOptions()
    assert parsed("--long-edge", 300) == UpscaleOptions(scale=None, long_edge=300)
    assert parsed("--scale", 2, "--t", "predicted", "--shifted", "--color", "lab") == UpscaleOptions(
        scale=2.0, t="predicted", shifted=True, color="lab"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scale", 0), "expected a number above 0; got 0"),
        (("--scale", "nan"), "expected a number above 0; got nan"),
        (("--long-edge", 0), "expected a whole number of 1 or more; got 0"),
        (("--long-edge", 1.5), "expected a whole number of 1 or more; got 1.5"),
        (("--t", 1), "expected a number between 0 and 1, or 'predicted', or 'calibrated'; got 1"),
        (("--t", "paired"), "got paired"),
        (("--realism", -0.1), "expected a number of 0 to 100; got -0.1"),
        (("--tile", -1), "expected a whole number of 0 or more; got -1"),
        (("--scale", 2, "--long-edge", 9), "not allowed with argument"),
    ],
)
def test_values_out_of_range_are_named(
    arguments: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(*arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_the_library_checks_the_same_range(value: float) -> None:
    with pytest.raises(AlloSR2Error, match="expected realism to be a number of 0 to 100"):
        check("realism", value)


def test_the_size_is_given_in_one_way() -> None:
    assert UpscaleOptions(scale=3.0).size == {"scale": 3.0, "long_edge": None}
    assert UpscaleOptions(scale=3.0, long_edge=64).size == {"scale": None, "long_edge": 64}


def test_words_for_the_time_are_methods() -> None:
    assert set(T_WORDS) < set(T_METHODS) and OPTIONS["t"].choices == T_WORDS and DEFAULTS["t"] is None


def test_help_pages_and_english_texts_are_made_from_the_options() -> None:
    assert help_pages.main(["--check"]) == 0


def test_a_page_that_says_something_else_is_seen() -> None:
    page = (help_pages.ROOT / "web" / "docs" / "TiledDecode.md").read_text(encoding="utf-8")
    changed = page.replace("- **color** (default and neutral none)", "- **color** (default lab)")
    assert changed != page and help_pages.help_page("TiledDecode", changed) == page
    with pytest.raises(ValueError, match="expected one line for color; got 0"):
        help_pages.help_page("TiledDecode", page.replace("**color**", "**colour**"))
