"""The imports of a package, read from its source: at the top, inside functions, and under TYPE_CHECKING alike."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Graph = Mapping[str, Iterable[str]]
"""Name -> the names that it points to."""


def import_graph(package: Path) -> dict[str, set[str]]:
    """Each module of a package by its dotted name, and what it imports: modules of the package, and other packages."""
    files = {name_of(path, package): path for path in package.rglob("*.py")}
    return {name: set(_imports(name, path, frozenset(files))) - {name} for name, path in files.items()}


def circles(graph: Graph) -> list[tuple[str, ...]]:
    """The groups of names each of which leads to all of its group; a name that leads to itself is a group."""
    reached = {name: _reached(graph, name) for name in graph}
    groups = {frozenset(other for other in reached[name] if name in reached.get(other, ())) for name in graph}
    return sorted(tuple(sorted(group)) for group in groups if group)


def _reached(graph: Graph, start: str) -> set[str]:
    """What a name leads to, in one step or more."""
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(graph.get(name, ()))
    return reached


def name_of(path: Path, package: Path) -> str:
    """The dotted name of a module of a package, by its file."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, path: Path, modules: frozenset[str]) -> Iterator[str]:
    own = name.partition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        for dotted in _dotted(node, name, is_package=path.stem == "__init__"):
            if dotted.partition(".")[0] != own:
                yield dotted.partition(".")[0]
            elif dotted in modules or dotted.rpartition(".")[0] not in modules:
                yield dotted  # one that is not there too: no rule allows it
            else:
                yield dotted.rpartition(".")[0]


def _dotted(node: ast.AST, name: str, *, is_package: bool) -> Iterator[str]:
    """What a statement imports; a name that is imported from a module stands behind it."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = name.split(".")[: len(name.split(".")) + is_package - node.level] if node.level else []
        source = ".".join([*above, *filter(None, [node.module])])
        yield from (f"{source}.{alias.name}" for alias in node.names)
