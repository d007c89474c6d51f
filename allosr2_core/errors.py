"""The one exception type of the core, and how what a file says is shown in its messages."""

from collections.abc import Iterator

LONGEST = 1500
"""Characters of a message; names of files may have a thousand."""
MOST_SHOWN = 80
"""Characters of one value out of a file."""


class AlloSR2Error(ValueError):
    """Bad input, checkpoint or configuration. The message says what was expected and what came, in one line.

    Files and their names come from strangers: line breaks and what terminals take for commands are written as escapes,
    and what is too long is cut.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(cut(one_line(str(message)), LONGEST))


def one_line(text: str) -> str:
    r"""Text with everything that is no visible character as an escape, as Python writes it: \n, \x1b, \u202e."""
    if text.isprintable():
        return text
    return "".join(part if part.isprintable() else repr(part)[1:-1] for part in text)


def cut(text: str, most: int) -> str:
    """Text of at most so many characters, with ... at the end where it was longer."""
    return text if len(text) <= most else text[: max(0, most - 3)] + "..."


def shown(value: object, most: int = MOST_SHOWN) -> str:
    """A value out of a file as Python writes it, in one line and cut; nothing of what is left out is written first."""
    return cut(one_line(_written(value, most + 1)), most)


def _written(value: object, most: int) -> str:
    """As `repr`, but stops early: what is shown is all that is looked at, however long or deep a value is."""
    if most <= 0:
        return "..."
    if isinstance(value, str):
        return repr(value[:most])
    if isinstance(value, int) and value.bit_length() > 4 * most:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, dict):
        pairs = (f"{_written(key, most - 1)}: {_written(part, most - 1)}" for key, part in value.items())
        return _enclosed("{", pairs, "}", most)
    if isinstance(value, (list, tuple)):
        first, last = "[]" if isinstance(value, list) else "()"
        return _enclosed(first, (_written(part, most - 1) for part in value), last, most)
    return repr(value)


def _enclosed(first: str, parts: Iterator[str], last: str, most: int) -> str:
    text = first
    for number, part in enumerate(parts):
        text += f", {part}" if number else part
        if len(text) > most:
            return text
    return text + last
