"""Help pages and the nodes' texts in every language: complete, alike, and true to what the code says."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import help_pages, translate
from tools.page_text import Style, page, sentences
from tools.translate import DOCS, ROOT, STYLES, Speaker, TranslationError, translated

NODES = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
PAGES = sorted(DOCS.rglob("*.md"))
OF_THE_HOST = {"out of memory"}
"""Messages on the pages that are not the pack's."""
LARGEST_PICTURE = 60_000  # bytes


def english_pages() -> dict[str, str]:
    return {node: (DOCS / f"{node}.md").read_text(encoding="utf-8") for node in NODES}


def shout(sentence: str) -> str:
    return sentence.upper()


def test_sentences_end_at_full_stops_alone() -> None:
    text = "One, e.g. this. The `t* = rho / (1 + rho)` of 0.5! expected ... got 4."
    assert sentences(text) == ["One, e.g. this.", "The `t* = rho / (1 + rho)` of 0.5!", "expected ... got 4."]


def test_a_page_keeps_its_form() -> None:
    text = (
        "# Title\n\nOne sentence,\nwrapped. Another.\n\n![a cat](cat.jpg)\n\n- **scale** (1 to 8): Words. More.\n"
        "- `went wrong: ...`, `or so`: Try again.\n\n| a | b |\n|---|---|\n| c d. | e. f |\n| 3.5 s | 600 x 400 px |\n"
    )
    said = page(text, shout, Style(between="", limits="[{}]", colon=";"), {"scale": "GROSS"})
    assert said == (
        "# TITLE\n\nONE SENTENCE, WRAPPED.ANOTHER.\n\n![A CAT](cat.jpg)\n\n- **GROSS** `scale`[1 TO 8];WORDS.MORE.\n"
        "- `went wrong: ...`, `or so`;TRY AGAIN.\n\n| A | B |\n|---|---|\n| C D. | E.F |\n| 3.5 s | 600 x 400 px |\n"
    )


def test_every_language_is_made_of_its_table() -> None:
    """The files themselves are compared by `help_pages --check`, in test_options.py."""
    for language in STYLES:
        made = dict(translated(language, NODES, english_pages()))
        assert made.keys() == {ROOT / "locales" / language / "nodeDefs.json"} | {
            DOCS / node / f"{language}.md" for node in NODES
        }
    languages = {path.name for path in (ROOT / "locales").iterdir()}
    assert languages == {"en", *STYLES} and {path.stem for path in PAGES} == set(NODES) | set(STYLES)


@pytest.mark.parametrize("language", STYLES)
def test_a_sentence_without_a_translation_is_named(language: str) -> None:
    pages = english_pages()
    pages["TiledDecode"] += "\nA sentence that nobody has seen.\n"
    with pytest.raises(TranslationError, match=f"{language}.json: no translation: A sentence that nobody has seen."):
        list(translated(language, NODES, pages))


def test_what_nobody_says_and_other_numbers_are_named() -> None:
    speaker = Speaker("zh", {"Half of 4.": "4 的一半。", "Use `t` 0.5.": "使用 `t` 0.6。", "fp32": "单精度"})
    speaker("Use `t` 0.5."), speaker("fp32")
    assert speaker.problems() == [
        "tools/translations/zh.json: not said anywhere: Half of 4.",
        "tools/translations/zh.json: other numbers or code than in English: Use `t` 0.5.",
    ]


def test_a_table_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ja.json").write_text("<<<<<<< HEAD", encoding="utf-8")
    monkeypatch.setattr(translate, "TABLES", tmp_path)
    with pytest.raises(TranslationError, match="translations/ja.json: expected JSON; Expecting value: line 1"):
        list(translated("ja", NODES, english_pages()))


def test_texts_that_the_front_end_would_not_show_are_refused() -> None:
    with pytest.raises(TranslationError, match=r"expected a text without any of {}\|@; got 'this \| that'"):
        translate.node_texts({"Node": {"description": "this | that"}}, shout, STYLES["zh"])


def test_a_lacking_translation_leaves_other_languages_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tables = tmp_path / "translations"
    tables.mkdir()
    for language in STYLES:
        table = json.loads((translate.TABLES / f"{language}.json").read_text(encoding="utf-8"))
        del table["The other one is not used."]
        (tables / f"{language}.json").write_text(json.dumps(table), encoding="utf-8")
    monkeypatch.setattr(translate, "TABLES", tables)
    assert help_pages.main(["--check"]) == 2
    said = capsys.readouterr().out
    assert said.splitlines() == [
        f"tools/translations/{language}.json: no translation: The other one is not used." for language in STYLES
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_pictures_are_where_the_front_end_looks_for_them(path: Path) -> None:
    """It resolves them against web/docs, the pages of other languages too."""
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    assert pictures or "AlloSR2PickFromList" in path.as_posix()
    for picture in pictures:
        assert 0 < (DOCS / picture).stat().st_size <= LARGEST_PICTURE


def texts_of_the_code() -> Iterator[str]:
    """Every string of the nodes and the library, with "..." for what is filled in."""
    for path in (*(ROOT / "nodes").rglob("*.py"), *(ROOT / "allosr2_core").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_on_the_pages_are_those_of_the_code() -> None:
    code, lost = "\n".join(texts_of_the_code()), []
    for text in english_pages().values():
        for line in text.partition("## If it fails")[2].splitlines():
            if line.startswith("- "):
                for message in re.findall(r"`([^`]+)`(?=, `|: )", line):
                    pattern = ".*".join(re.escape(part) for part in message.split("..."))
                    if message not in OF_THE_HOST and not re.search(pattern, code):
                        lost.append(message)
    assert not lost
