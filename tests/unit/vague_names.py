"""Names that say how something came to be there and not what it is, wherever Python source binds one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

VAGUE = frozenset({"found", "asked", "told"})


def vague_names(path: Path) -> list[tuple[int, str]]:
    """The lines of a file in which a vague name is bound, each with the name.

    Variables, loops, arguments, attributes, functions, classes, imports, caught errors and patterns bind names.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return sorted({(line, name) for line, name in _bound(tree) if name in VAGUE})


def _bound(tree: ast.Module) -> Iterator[tuple[int, str | None]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.alias(name=name, asname=other):
                yield node.lineno, other or name
            case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
                yield node.lineno, name
            case ast.MatchMapping(rest=name):
                yield node.lineno, name
