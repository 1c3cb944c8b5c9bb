"""Texts with one label each: reading of JSON lines and CSV, and their way to a `TextSet`."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kcost.core.artifact import Dataset
from kcost.core.errors import DataError
from kcost.data import splits as cuts
from kcost.data.jsonl import json_objects
from kcost.data.sets import SPLITS, Texts, TextSet, texts_split
from kcost.data.text_files import TABLE_COLUMNS, form_of, read_text, table_separator

LONGEST_FIELD = 1 << 24
"""Characters of a CSV field; the csv module's own limit is shorter than some documents."""

_FORMS = 'Each line is an object with "text" (or "tokens", a list) and "label", both strings.'
_QUOTING = "Quote texts that hold separators, quotes or line ends."


@dataclass(frozen=True)
class RawTexts:
    """The texts and labels of one file, and how many empty texts were left out."""

    path: Path
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    empty: int


def read_texts(path: Path) -> RawTexts:
    """Reads a CSV file (between commas, semicolons or tabs) with the columns text and label, or JSON lines.

    JSON lines hold {"text": ..., "label": ...} or {"tokens": [...], "label": ...}; tokens are joined by spaces.

    Raises:
        DataError: a line is not of that form; the message names it.
    """
    rows = _json_rows(path) if form_of(path) in ("json-texts", "json-tags") else _csv_rows(path)
    kept = [(text, label) for text, label in rows if text.strip()]
    if not kept:
        raise DataError("A file of labelled texts holds one at least.", f"{path}, without any", "Give another file.")
    texts, labels = zip(*kept, strict=True)
    return RawTexts(path, texts, labels, len(rows) - len(kept))


def build_text_set(
    parts: dict[str, RawTexts], *, name: str, source: str, licence: str, seed: int = 0, limit: int | None = None
) -> TextSet:
    """Makes a `TextSet` of the files that a source has; the arguments are those of `kcost.data.ner.build_tag_set`.

    Raises:
        DataError: there are fewer than two labels, or too few texts.
    """
    label_names = tuple(sorted({label for part in parts.values() for label in part.labels}))
    if len(label_names) < 2:
        received = f"the label {label_names[0]!r} alone"
        raise DataError("Texts are of at least two classes.", received, "Check the labels.")
    index = {label: i for i, label in enumerate(label_names)}
    labels = {part: np.array([index[label] for label in raw.labels], np.int32) for part, raw in parts.items()}
    places, split_notes = cuts.complete(labels, seed)
    splits = {split: _taken(parts[part].texts, labels[part], rows) for split, (part, rows) in places.items()}
    duplicate_notes = cuts.duplicates({split: splits[split].texts for split in SPLITS})
    unseen = [label for i, label in enumerate(label_names) if i not in splits["train"].y]
    notes = [f"{part}: {raw.empty} empty texts were left out" for part, raw in parts.items() if raw.empty]
    notes += [*split_notes, *duplicate_notes]
    if unseen:
        notes.append(f"labels without a train example: {', '.join(unseen)}")
    if limit is not None:
        for split, texts in splits.items():
            rows = cuts.sample(texts.y, min(limit, len(texts)), seed)
            splits[split] = _taken(texts.texts, texts.y, rows)
        notes.append(f"at most {limit} texts a split, sampled with seed {seed}")
    record = Dataset(
        name=name,
        synthetic=False,
        source=source,
        licence=licence,
        splits={split: texts_split(texts) for split, texts in splits.items()},
        notes=tuple(notes),
    )
    return TextSet(name, label_names, splits, record)


def _taken(texts: tuple[str, ...], labels: np.ndarray, rows: np.ndarray) -> Texts:
    return Texts(tuple(texts[i] for i in rows), labels[rows])


def _json_rows(path: Path) -> list[tuple[str, str]]:
    return [_checked(_text_of(entry), entry.get("label"), where) for _, where, entry in json_objects(path, _FORMS)]


def _text_of(entry: dict[str, Any]) -> object:
    tokens = entry.get("tokens")
    if "text" not in entry and isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        return " ".join(tokens)
    return entry.get("text")


def _csv_rows(path: Path) -> list[tuple[str, str]]:
    rule = "A CSV file of texts has a header with the columns text and label."
    text = read_text(path)
    separator = table_separator(text.partition("\n")[0]) or ("\t" if path.suffix.lower() == ".tsv" else ",")
    limit = csv.field_size_limit(LONGEST_FIELD)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = reader.fieldnames or []
        if not set(header) >= TABLE_COLUMNS:
            raise DataError(rule, f"{path} with {', '.join(header) or 'no header'}", "Rename the columns.")
        return [_csv_row(row, len(header), f"{path}, line {reader.line_num}") for row in reader]
    except csv.Error as error:
        where = f"{path}, line {reader.line_num + 1}"  # the first of the row that could not be read
        raise DataError(rule, f"{where}: {error}", _QUOTING) from error
    finally:
        csv.field_size_limit(limit)


def _csv_row(row: dict[Any, Any], columns: int, where: str) -> tuple[str, str]:
    more = row.get(None)  # where the csv module puts what stands beyond the header's columns
    if more is not None:
        rule = f"Each row of a CSV file has the {columns} columns of its header."
        raise DataError(rule, f"{where}: {columns + len(more)} columns", _QUOTING)
    return _checked(row["text"], row["label"], where)


def _checked(text: object, label: object, where: str) -> tuple[str, str]:
    if type(label) is int:
        label = str(label)
    if not isinstance(text, str) or not isinstance(label, str) or not label.strip():
        raise DataError(
            "Each text has one label.",
            received=f"{where}: " + ("a label that is empty or no string" if isinstance(text, str) else "no text"),
            remedy=_FORMS,
        )
    if any("\ud800" <= character <= "\udfff" for character in text + label):
        raise DataError("Text is Unicode.", f"{where}: half of a surrogate pair", "Correct that line.")
    return text, label.strip()
