"""What a file says, and what it is called, is shown in one line and cut."""

import pytest

from allosr2_core.errors import LONGEST, MOST_SHOWN, AlloSR2Error, one_line, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        (1.5, "1.5"),
        (None, "None"),
        ([1, "b"], "[1, 'b']"),
        ((1, 2), "(1, 2)"),
        ({"a": {"b": [True]}}, "{'a': {'b': [True]}}"),
        ("line\nred\x1b[31m", r"'line\nred\x1b[31m'"),
        (10**400, "an integer of 1329 bits"),
        (2**64, str(2**64)),
    ],
)
def test_values_are_shown_as_python_writes_them(value: object, text: str) -> None:
    assert shown(value) == text


def test_what_is_long_or_deep_is_cut_without_being_written_first() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    many = {str(number): "x" * 300_000 for number in range(10)}
    for value in ("x" * 300_000, list(range(10**6)), deep, many, [many] * 1000):
        text = shown(value)
        assert len(text) == MOST_SHOWN and text.endswith("...")
    assert len(shown("x" * 30, 20)) == 20


def test_a_message_is_one_line_without_commands_for_a_terminal() -> None:
    error = AlloSR2Error("a\nb\r\x1b]0;title\x07 \u202egnp.exe ü 名")
    assert str(error) == r"a\nb\r\x1b]0;title\x07 \u202egnp.exe ü 名"
    assert len(str(AlloSR2Error("y" * 10**6))) == LONGEST
    assert str(AlloSR2Error(str(error))) == str(error)
    assert one_line("\udcff.png") == r"\udcff.png"
