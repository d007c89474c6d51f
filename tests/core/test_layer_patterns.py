"""Patterns of layer names are a part of Python's regular expressions, without those that take for ever."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allosr2_core.adapters.layer_patterns import MOST_CHARACTERS, MOST_PATTERNS, LayerPattern, read_patterns
from allosr2_core.errors import AlloSR2Error

OURS = r"double_blocks\.\d+\.(img|txt)_(attn\.(qkv|proj)|mlp\.[02])"


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        (OURS, "double_blocks.12.txt_mlp.2", "double_blocks.12.txt_mlp.1"),
        (OURS, "double_blocks.0.img_attn.proj", "double_blocks.x.img_attn.proj"),
        ("conv|wide", "wide", "conv|wide"),
        ("lin.*", "linear.0", "a.linear"),
        (r"a\.b", "a.b", "axb"),
        ("a.b", "axb", "ab"),
        ("to_[qkv]", "to_k", "to_x"),
        ("[a-c0-9_]+", "ab1_", "abd"),
        ("(?:a|ab)c?", "abc", "abcc"),
        ("(img_)?in", "in", "img_img_in"),
        ("^whole$", "whole", "not.whole"),
        ("", "", "a"),
    ],
)
def test_what_fits(pattern: str, fits: str, does_not: str) -> None:
    assert LayerPattern(pattern).fits(fits)
    assert not LayerPattern(pattern).fits(does_not)


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "(a", "[", "[]", "[^a]", "[z-a]", "a{3}", "(a)*", "(x+x+)+y", "(a|a)+", "a**", "a+?", "\\", r"\w"]
    + [r"\1", "(?=a)", "(?i)a", "(?P<n>a)", "a b", "é", "\n", "*", "a" * (MOST_CHARACTERS + 1), "(" * 40 + ")" * 40],
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(AlloSR2Error, match="expected a "):
        LayerPattern(pattern)
    with pytest.raises(AlloSR2Error, match="expected a "):
        read_patterns(["a", pattern])


def test_too_many_patterns() -> None:
    read_patterns(["a"] * MOST_PATTERNS)
    with pytest.raises(AlloSR2Error, match="at most 4096 patterns, got 4097"):
        read_patterns(["a"] * (MOST_PATTERNS + 1))


ATOMS = st.sampled_from(["a", "b", "1", "_", r"\.", r"\d", "[ab]", "."])
PIECES = st.tuples(ATOMS, st.sampled_from(["", "", "*", "+", "?"])).map("".join)
PATTERNS = st.recursive(
    st.lists(PIECES, max_size=4).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda ways: f"({'|'.join(ways)})"),
        st.tuples(inner, inner).map("".join),
    ),
    max_leaves=6,
)


@settings(max_examples=150)
@given(pattern=PATTERNS, name=st.text("ab1_.", max_size=8))
def test_a_pattern_means_what_it_means_to_python(pattern: str, name: str) -> None:
    assert LayerPattern(pattern).fits(name) == bool(re.fullmatch(pattern, name))
    peft = bool(re.match(rf"(.*\.)?({pattern})$", name))
    assert LayerPattern(pattern).fits_end(name) == peft


@pytest.mark.parametrize("pattern", ["(a|a)" * 80 + "x", ".*" * 200 + "x", r"\d+" * 100 + "x", "(a?|a)" * 60 + "x"])
def test_no_pattern_takes_long(pattern: str) -> None:
    """Each of these takes Python's own longer than anybody waits."""
    started = time.process_time()
    for name in ("a" * 500, "1" * 500):
        assert not LayerPattern(pattern).fits(name)
    assert time.process_time() - started < 2.0
