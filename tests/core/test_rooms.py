"""The folders of the library, the nodes and the trainer import each other one way only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ALLOWED = {"allosr2_core": {"allosr2_core"}, "nodes": {"nodes", "allosr2_core"}, "train": {"train", "allosr2_core"}}
"""What each package may import of the repository."""


def modules(package: str) -> Iterator[tuple[list[str], Path]]:
    """The dotted names of a package's modules, as lists, and their files."""
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        parts = list(path.relative_to(REPOSITORY).with_suffix("").parts)
        yield parts[:-1] if parts[-1] == "__init__" else parts, path


def imports(name: list[str], path: Path) -> Iterator[list[str]]:
    """The modules of the repository that a module imports, wherever it does."""
    inside = name if path.name == "__init__.py" else name[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else []
            module = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                full = REPOSITORY.joinpath(*module, alias.name)
                yield [*module, alias.name] if full.is_dir() or full.with_suffix(".py").is_file() else module
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)


def room(name: list[str]) -> str:
    """The folder directly below the package, or the module itself where it lies there."""
    return name[1] if len(name) > 1 else ""


def rooms(package: str) -> dict[str, set[str]]:
    """Each room's other rooms that it imports from."""
    graph: dict[str, set[str]] = {}
    for name, path in modules(package):
        found = {room(used) for used in imports(name, path) if used[0] == package}
        graph.setdefault(room(name), set()).update(found - {room(name), ""})
    return graph


def in_circles(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is left when rooms that import nothing that is left are taken away, again and again."""
    while free := {name for name, used in graph.items() if not used & graph.keys()}:
        graph = {name: used for name, used in graph.items() if name not in free}
    return graph


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_downwards(package: str) -> None:
    ours = set(ALLOWED) | {"tests", "tools", "benchmarks"}
    for name, path in modules(package):
        used = {module[0] for module in imports(name, path) if module and module[0] in ours}
        assert used <= ALLOWED[package], f"{path.relative_to(REPOSITORY)} imports {used - ALLOWED[package]}"


@pytest.mark.parametrize("package", ALLOWED)
def test_rooms_import_one_way(package: str) -> None:
    graph = rooms(package)
    assert len(graph) > 5
    assert not in_circles(graph)


def test_a_circle_would_be_seen() -> None:
    assert in_circles({"a": {"b"}, "b": set(), "c": {"a", "b"}}) == {}
    assert set(in_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()})) == {"a", "b", "c", "d"}
