"""Versions of every file that kcost writes, and the way each is read and written.

A file is JSON with an integer `schema`. An older file is upgraded step by step when it is read, a
newer one is refused. Writing is atomic: a reader sees the old file or the new one, never a half.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, from_json

from kcost.core.errors import SchemaError, storage
from kcost.version import __version__

VERSIONS = {
    **{"artifact": 2, "run": 3, "cell": 3, "environment": 1},
    **{"verdict": 2, "export": 1, "conversion": 1, "budget": 1, "next_dollar": 1, "probe": 1},
    **{"predictions": 1, "risk": 1, "recommendation": 1, "reference": 1, "monitor": 1, "variant": 1},
    "rollouts": 1,
}
"""The schema number that this version of kcost writes, by kind of file."""

HIDDEN = "'fake'"
"""A value of `core.plan.Backend` that tests name and users are not told of."""

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]

UPGRADES: dict[tuple[str, int], Upgrade] = {
    # Schema 2 adds fields that may be missing: answers by class in an artifact; watched turns, settled warm-ups,
    # precision, several numbers of threads, models that take turns together and scenarios in a run.
    ("artifact", 1): dict,
    ("run", 1): dict,
    ("cell", 1): dict,
    # Schema 3: the precision `saved`, and of a cell what its layers compute in and whether its answers are finite.
    ("run", 2): dict,
    ("cell", 2): dict,
}
"""(kind, n) -> the function that turns a document of schema n into one of schema n + 1."""


class Record(BaseModel):
    """Base of all data that kcost stores: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_by_name=True,
        serialize_by_alias=True,
        defer_build=True,  # a command uses few of all the records that it imports
    )


R = TypeVar("R", bound=BaseModel)


def upgrade(kind: str, document: dict[str, Any], where: object) -> dict[str, Any]:
    """Brings a document to the schema that this version writes.

    Raises:
        SchemaError: the document has no schema number, or one from a newer kcost, or one so old
            that no upgrade is known.
    """
    current = VERSIONS[kind]
    written = document.get("schema")
    if not isinstance(written, int) or isinstance(written, bool) or written < 1:
        raise SchemaError(
            f"A {kind} file carries a positive integer `schema`.",
            received=f"schema = {written!r} in {where}",
            remedy="The file was not written by kcost, or it is damaged. Make it again.",
        )
    if written > current:
        raise SchemaError(
            f"kcost {__version__} reads {kind} files up to schema {current}.",
            received=f"schema {written} in {where}",
            remedy="A newer kcost wrote this file. Install that version: pip install --upgrade kcost",
        )
    while written < current:
        step = UPGRADES.get((kind, written))
        if step is None:
            raise SchemaError(
                f"kcost {__version__} has no upgrade for {kind} files of schema {written}.",
                received=str(where),
                remedy="Open it once with an older kcost that knows that schema, or make it again.",
            )
        document = {**step(document), "schema": written + 1}
        written += 1
    return document


def describe_validation(error: ValidationError, limit: int = 5) -> str:
    """The problems of a validation error in one line, each with its place in the document."""
    problems = [f"{'.'.join(str(p) for p in e['loc']) or 'document'}: {_message(e)}" for e in error.errors()]
    more = len(problems) - limit
    return "; ".join(problems[:limit]) + (f"; and {more} more" if more > 0 else "")


def _message(problem: ErrorDetails) -> str:
    """What is wrong in one place; `fake`, the simulated backend, is not offered."""
    names = re.findall(r"'[^']*'", str(problem.get("ctx", {}).get("expected", "")))
    if problem["type"] != "literal_error" or HIDDEN not in names:
        return problem["msg"]
    *most, last = (name for name in names if name != HIDDEN)
    return f"Input should be {', '.join(most)} or {last}"


_WRITTEN = re.compile(rb'\s*\{\s*"schema"\s*:\s*(\d+)\s*[,}]')
"""How a file begins that kcost wrote. One of the present schema needs no dictionary on its way to a model."""


def read(kind: str, path: Path, model: type[R]) -> R:
    """Reads, upgrades and checks one file.

    Raises:
        SchemaError: the file is not JSON, not of this kind, or of a newer schema.
        FileNotFoundError: there is no such file.
    """
    text = path.read_bytes()
    header = _WRITTEN.match(text)
    if header is not None and int(header[1]) == VERSIONS[kind]:
        try:
            return model.model_validate_json(text)
        except ValidationError:
            pass  # told below, in the words for what is wrong with it
    try:
        document = from_json(text)
        if not isinstance(document, dict):
            raise ValueError(f"a JSON {type(document).__name__}, not an object")
    except ValueError as error:
        raise SchemaError(
            f"A {kind} file is a JSON object.",
            received=f"{path}: {error}",
            remedy="The file is damaged. Make it again, or delete it to let kcost make it again.",
        ) from error
    try:
        return model.model_validate(upgrade(kind, document, path))
    except ValidationError as error:
        raise SchemaError(
            f"A {kind} file of schema {VERSIONS[kind]} has the fields in docs/file-formats.md.",
            received=f"{path}: {describe_validation(error)}",
            remedy="The file is damaged or was edited. Make it again.",
        ) from error


def write(path: Path, record: BaseModel) -> None:
    """Writes one file atomically.

    Raises:
        StorageError: the folder cannot be written to, or the disk is full. No half file stays.
    """
    write_bytes(path, (record.model_dump_json(indent=1) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` atomically. Raises StorageError as `write` does."""
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
