"""The private names of others that a module reaches, read from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .import_graph import name_of

_NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}
"""Python's documentation has these names; the underscore keeps them apart from the fields."""

_STRING = re.compile(r"_[a-z](\w*[a-z0-9])?")
_ENDINGS = {"endswith", "removesuffix"}


def private_names(package: Path) -> list[tuple[str, str]]:
    """Each module of a package by its dotted name, and each private name of others that it reaches.

    That is an attribute with one underscore of anything but `self` and `cls`; one of these two that no class or
    function of the package has; a string that is such a name, for getattr and its kind; and an import from `keras.src`
    or from anything with one underscore.
    """
    trees = {name_of(path, package): ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}
    own = {name for tree in trees.values() for name in _defined(tree)} | _NAMED_TUPLE
    return [(module, name) for module, tree in trees.items() for name in dict.fromkeys(_reached(tree, own))]


def _reached(tree: ast.Module, own: set[str]) -> Iterator[str]:
    harmless = set(_harmless_strings(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                if _is_private(name) and name not in own:
                    yield name
            case ast.Attribute(value=ast.Name(id="keras"), attr="src"):
                yield "keras.src"
            case ast.Attribute(attr=name):
                if _is_private(name) and name not in _NAMED_TUPLE:
                    yield name
            case ast.Constant(value=str(text)):
                if _STRING.fullmatch(text) and node not in harmless:
                    yield text
            case ast.Import(names=names):
                yield from (name for alias in names for name in _private_part(alias.name))
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (name for alias in names for name in _private_part(f"{module}.{alias.name}"))


def _harmless_strings(tree: ast.Module) -> Iterator[ast.AST]:
    """Pieces of longer strings, and what other strings may end with."""
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=values):
                yield from values
            case ast.Call(func=ast.Attribute(attr=method), args=arguments) if method in _ENDINGS:
                yield from arguments


def _defined(tree: ast.Module) -> Iterator[str]:
    """What classes and functions of a module are called, their methods and fields, and what is set on `self`."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _private_part(dotted: str) -> Iterator[str]:
    """The way to what is private in an imported name of another package: kcost's own modules and names are kcost's."""
    parts = dotted.split(".")
    for end in range(2, len(parts) + 1):
        if parts[0] != "kcost" and (parts[:end] == ["keras", "src"] or _is_private(parts[end - 1])):
            yield ".".join(parts[:end])
            return
