"""Help pages cut into sentences, which are translated one by one, and put together again.

A page is Markdown of a few kinds of lines: headings, items of a list, rows of a table, pictures, and paragraphs, which
may be wrapped. Pictures and code stay as they are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Say = Callable[[str], str]
"""A sentence (or a short text without a full stop) in another language."""
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!\.\.\.)\s+")
_INPUT = re.compile(r"^\*\*(?P<name>[^*]+)\*\*(?: \((?P<limits>[^)]+)\))?: (?P<text>.+)$")
_MESSAGE = re.compile(r"^(?P<messages>(?:`[^`]+`(?:, )?)+): (?P<text>[A-Z].+)$")
_PICTURE = re.compile(r"^!\[(?P<text>[^\]]*)\]\((?P<path>[^)]+)\)$")
_FIGURE = re.compile(r"^[\d.,x ]+ ?(?:s|MB|GB|MiB|GiB|px|%)?$")
"""A cell of a table that is the same in every language."""
_RULE = re.compile(r"^\|[-:| ]+\|$")


@dataclass(frozen=True)
class Style:
    """How a language puts texts together."""

    between: str
    """Sentences."""
    limits: str
    """Around what an input may be, with `{}` for it."""
    colon: str


def sentences(text: str) -> list[str]:
    """A text cut behind each full stop."""
    return _END_OF_SENTENCE.split(text)


def spoken(text: str, say: Say, style: Style) -> str:
    """A text of one or more sentences in another language."""
    return style.between.join(say(sentence) for sentence in sentences(text))


def page(text: str, say: Say, style: Style, names: Mapping[str, str]) -> str:
    """A page in another language. names: of inputs and outputs, as the interface shows them there."""
    return "\n".join(_line(line, say, style, names) for line in _unwrapped(text.rstrip("\n"))) + "\n"


def _unwrapped(text: str) -> Iterator[str]:
    """Lines, where each paragraph is one line."""
    for is_paragraph, lines in itertools.groupby(text.split("\n"), _is_of_a_paragraph):
        if is_paragraph:
            yield " ".join(lines)
        else:
            yield from lines


def _is_of_a_paragraph(line: str) -> bool:
    return bool(line) and not line.startswith(("#", "- ", "|", "!["))


def _line(line: str, say: Say, style: Style, names: Mapping[str, str]) -> str:
    if not line or _RULE.match(line):
        return line
    if line.startswith("#"):
        marks, _, text = line.partition(" ")
        return f"{marks} {say(text)}"
    if line.startswith("- "):
        return f"- {_entry(line[2:], say, style, names)}"
    if line.startswith("|"):
        cells = (cell.strip() for cell in line.strip("|").split("|"))
        said = (cell if not cell or _FIGURE.match(cell) else spoken(cell, say, style) for cell in cells)
        return f"| {' | '.join(said)} |"
    if picture := _PICTURE.match(line):
        return f"![{say(picture['text'])}]({picture['path']})"
    return _entry(line, say, style, names)


def _entry(text: str, say: Say, style: Style, names: Mapping[str, str]) -> str:
    """A text that may begin with the name of an input or output, or with the host's or the pack's own messages."""
    if named := _INPUT.match(text):
        name = names[named["name"]]
        label = f"**{name}**" if name == named["name"] else f"**{name}** `{named['name']}`"
        limits = style.limits.format(say(named["limits"])) if named["limits"] else ""
        return f"{label}{limits}{style.colon}{spoken(named['text'], say, style)}"
    if message := _MESSAGE.match(text):
        return f"{message['messages']}{style.colon}{spoken(message['text'], say, style)}"
    return spoken(text, say, style)
