"""Text files: their bytes made text, and which form of data they hold. Content tells the form, not the ending."""

from __future__ import annotations

import codecs
import csv
import json
from pathlib import Path
from typing import Literal

from kcost.core.errors import DataError
from kcost.data.tags import is_tag, lacks_type

Form = Literal["table", "json-texts", "json-tags", "conll"]
"""A CSV file of labelled texts; JSON lines of labelled texts; JSON lines of tagged sentences; CoNLL columns."""

TABLE_SUFFIXES = (".csv", ".tsv")
TABLE_COLUMNS = frozenset({"text", "label"})
SEPARATORS = (",", "\t", ";")

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_JSON_TAG_KEYS = frozenset({"tags", "labels", "ner_tags", "spans", "entities"})
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LOOKED_AT = 50  # lines that tell whether columns are words and tags


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; without that mark.

    Raises:
        DataError: the file cannot be opened, or holds a byte that is none of its encoding; the message names its line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError("A data file can be read.", f"{path}: {error.strerror}", "Check its permissions.") from error
    mark, encoding = next(((mark, name) for mark, name in _MARKS if raw.startswith(mark)), (b"", "utf-8"))
    raw = raw[len(mark) :]
    if encoding == "utf-8" and _is_wide(raw):
        raise DataError(
            "A text file in UTF-16 begins with a byte order mark.",
            received=f"{path}, where every other byte is zero, without one",
            remedy="Convert the file, for example: iconv -f utf-16le -t utf-8 FILE",
        )
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].decode(encoding, "replace").count("\n") + 1
        raise DataError(
            "Text files are in UTF-8, or in UTF-16 with a byte order mark.",
            received=f"{path}, line {line}: byte 0x{raw[error.start]:02x}",
            remedy="Convert the file, for example: iconv -f latin1 -t utf-8 FILE",
        ) from error


def form_of(path: Path) -> Form:
    """The form of a text file, told by its first lines; its ending counts only where these leave it open.

    Raises:
        DataError: it is no text.
    """
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    first = lines[0] if lines else ""
    if table_separator(first) is not None:
        return "table"
    suffix = path.suffix.lower()
    try:
        entry = json.loads(first)
    except (ValueError, RecursionError):
        entry = None
    if isinstance(entry, dict):
        return "json-texts" if "label" in entry and not _JSON_TAG_KEYS & set(entry) else "json-tags"
    if suffix in _JSON_SUFFIXES or (first.startswith('{"') and not _ends_with_tag(first)):
        return "json-tags"  # broken, which the reader names
    if suffix not in TABLE_SUFFIXES:
        return "conll"
    rows = [line for line in lines[:_LOOKED_AT] if not line.startswith(("#", "-DOCSTART-"))]
    return "conll" if 2 * sum(map(_ends_with_tag, rows)) > len(rows) else "table"


def table_separator(header: str) -> str | None:
    """What stands between the columns of a CSV file whose header names text and label; None for another line."""
    for separator in SEPARATORS:
        try:
            columns = next(csv.reader([header.removesuffix("\r")], delimiter=separator), [])
        except csv.Error:
            continue
        if set(columns) >= TABLE_COLUMNS:
            return separator
    return None


def _ends_with_tag(line: str) -> bool:
    """Whether a line holds columns, between tabs or spaces, the last of which is a tag."""
    columns = line.split()
    return len(columns) > 1 and (is_tag(columns[-1]) or lacks_type(columns[-1]))


def _is_wide(raw: bytes) -> bool:
    """Whether every other byte of a file's start is zero, as in UTF-16 of a text with Latin letters or spaces."""
    start = raw[:1024]
    even, odd = start[::2].count(0), start[1::2].count(0)
    return len(start) > 3 and 4 * max(even, odd) > len(start) and min(even, odd) == 0
