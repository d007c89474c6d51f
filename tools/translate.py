"""The nodes' texts and help pages in other languages, out of the tables in tools/translations.

A table has every English sentence of locales/en/nodeDefs.json and web/docs, and what it is in its language. What is
written: locales/LANGUAGE/nodeDefs.json and web/docs/NODE/LANGUAGE.md, where ComfyUI's front end looks for them.
`tools/help_pages.py` runs this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.page_text import Style, page, spoken

ROOT = Path(__file__).resolve().parents[1]
TABLES = Path(__file__).with_name("translations")
DOCS = ROOT / "web" / "docs"
STYLES = {
    "zh": Style(between="", limits="（{}）", colon="："),
    "ja": Style(between="", limits="（{}）", colon=": "),
}
"""The languages, by ComfyUI's names for them."""
Texts = dict[str, Any]
"""nodeDefs.json: node -> display_name, description, inputs, outputs."""
_NOT_IN_MESSAGES = re.compile(r"[{}|@]")
"""What the front end's messages give a meaning of their own."""
_KEPT = re.compile(r"(?<![A-Za-z\d.])\d+(?:\.\d+)?|`[^`]+`")
"""What a translation says as the English does: numbers (none in names like fp32 or FLUX.1) and code."""


class TranslationError(ValueError):
    """A table lacks sentences, has others, or says something else; the text names them."""


@dataclass
class Speaker:
    """A language's table, which notes what it was asked for."""

    language: str
    table: dict[str, str]
    used: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, language: str) -> Speaker:
        """TranslationError where the table is no JSON, such as after a merge."""
        try:
            return cls(language, json.loads((TABLES / f"{language}.json").read_text(encoding="utf-8")))
        except json.JSONDecodeError as error:
            raise TranslationError(f"tools/translations/{language}.json: expected JSON; {error}") from error

    def __call__(self, sentence: str) -> str:
        self.used.add(sentence)
        return self.table.get(sentence, "")

    def problems(self) -> list[str]:
        """What is wrong with the table, after everything was said."""
        found = [f"no translation: {sentence}" for sentence in sorted(self.used) if not self.table.get(sentence)]
        found += [f"not said anywhere: {sentence}" for sentence in self.table if sentence not in self.used]
        for sentence, said in self.table.items():
            if sorted(_KEPT.findall(sentence)) != sorted(_KEPT.findall(said)):
                found.append(f"other numbers or code than in English: {sentence}")
        return [f"tools/translations/{self.language}.json: {problem}" for problem in found]


def node_texts(english: Texts, say: Speaker, style: Style) -> Texts:
    """nodeDefs.json in another language. TranslationError for characters that the front end would not show."""

    def text(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: text(part) for key, part in value.items()}
        said = spoken(value, say, style)
        if _NOT_IN_MESSAGES.search(value + said):
            raise TranslationError(f"expected a text without any of {{}}|@; got {value!r}, {said!r}")
        return said

    return {node: text(texts) for node, texts in english.items()}


def names_of(english: Texts, texts: Texts) -> dict[str, str]:
    """The inputs and outputs of a node by what its English page calls them -> their names in another language."""
    outputs = {english["outputs"][number]["name"]: sockets["name"] for number, sockets in texts["outputs"].items()}
    return {**{name: socket["name"] for name, socket in texts["inputs"].items()}, **outputs}


def translated(language: str, english: Texts, pages: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """Every file of a language and its text; pages: the English ones by node. TranslationError: see there."""
    say, style = Speaker.of(language), STYLES[language]
    texts = node_texts(english, say, style)
    files = {ROOT / "locales" / language / "nodeDefs.json": json.dumps(texts, indent=2, ensure_ascii=False) + "\n"}
    for node, text in pages.items():
        files[DOCS / node / f"{language}.md"] = page(text, say, style, names_of(english[node], texts[node]))
    if problems := say.problems():
        raise TranslationError("\n".join(problems))
    yield from files.items()
