"""The nodes' texts and help pages in every language: `python tools/help_pages.py`.

Writes the lines of web/docs and the tooltips of locales/en that belong to an option, as `UpscaleOptions` say it, and
then everything in the other languages (`translate.py`). With --check it only says which files differ, and its exit code
is 1 then. It is 2 where sentences have no translation: these are named, and no other language is written.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from allosr2_core.options import DEFAULTS, OPTIONS, Option  # noqa: E402
from tools.translate import STYLES, TranslationError, translated  # noqa: E402

OPTIONS_OF = {
    "AlloSR2Upscale": ("scale", "long_edge", "realism", "color", "t"),
    "AlloSR2OneStepUpscale": ("scale", "long_edge", "t", "tile", "overlap", "shifted"),
    "TiledDecode": ("realism", "color"),
}
"""Node -> the options among its inputs that mean there what they mean everywhere."""
DOCS = ROOT / "web" / "docs"
ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"


def help_line(name: str, option: Option) -> str:
    """A line of a help page's list of inputs."""
    default = DEFAULTS[name]
    if default is None and option.slider is None:
        limits = "optional"
    else:
        start = default if option.slider is None else f"{option.start(name):g}"
        limits = "default" if option.neutral is None else "default and neutral"
        limits += f" {'off' if start is False else start}"
        if option.slider is not None:
            limits = f"{option.slider.least:g} to {option.slider.most:g}, {limits}"
    return f"- **{option.node_name or name}** ({limits}): {option.help_page}"


def help_page(node: str, text: str) -> str:
    """A help page with the lines of its options as they should be. ValueError where one has no line."""
    for name in OPTIONS_OF[node]:
        option = OPTIONS[name]
        line, count = re.compile(rf"^- \*\*{option.node_name or name}\*\* .*$", re.M), 0
        text, count = line.subn(lambda _, n=name, o=option: help_line(n, o), text)
        if count != 1:
            raise ValueError(f"{node}.md: expected one line for {name}; got {count}")
    return text


def english(text: str) -> str:
    """The English texts with the tooltips of options as they should be."""
    nodes = json.loads(text)
    for node, names in OPTIONS_OF.items():
        for name in names:
            nodes[node]["inputs"][OPTIONS[name].node_name or name]["tooltip"] = OPTIONS[name].tooltip
    return json.dumps(nodes, indent=2, ensure_ascii=False) + "\n"


def all_texts() -> tuple[dict[Path, str], list[str]]:
    """Every file that is made here, as it should be, and what keeps languages from being made."""
    texts = {ENGLISH: english(ENGLISH.read_text(encoding="utf-8"))}
    nodes, pages, problems = json.loads(texts[ENGLISH]), {}, []
    for node in nodes:
        path = DOCS / f"{node}.md"
        page = path.read_text(encoding="utf-8")
        texts[path] = pages[node] = help_page(node, page) if node in OPTIONS_OF else page
    for language in STYLES:
        try:
            texts |= translated(language, nodes, pages)
        except TranslationError as error:
            problems.append(str(error))
    return texts, problems


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(argv).check
    texts, problems = all_texts()
    other = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in other:
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    return 2 if problems else int(check and bool(other))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
