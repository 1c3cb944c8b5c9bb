"""Reading of JSON lines: one object a line, with words and tags, or with a text and character spans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from kcost.core.errors import DataError
from kcost.data.conll import RawFile, RawSentence
from kcost.data.tags import is_tag, lacks_type
from kcost.data.text_files import read_text
from kcost.data.words import words_of

BLANK_TOKENS = "words of white space with the tag O"

_TAG_KEYS = ("tags", "labels", "ner_tags")
_SPAN_KEYS = ("spans", "entities")
_FORMS = (
    'Each line is an object with "tokens" and "tags", or with "text" and "spans" (or "entities") of '
    '{"start", "end", "label"}.'
)


def read_jsonl(path: Path) -> RawFile:
    """Reads a file of JSON lines; an empty line is passed over.

    A text is cut into words by `words_of`. A span is [start, end) in characters and covers whole words.

    Raises:
        DataError: a line is not such an object, a tag is none, lengths differ, a span does not start or end where
            a word does, spans overlap, or the file is empty. The message names the line.
    """
    sentences = []
    blank_tokens = 0
    for number, where, entry in json_objects(path, _FORMS):
        tokens, tags = _from_tokens(entry, where) if "tokens" in entry else _from_text(entry, where)
        kept = [(token, tag) for token, tag in zip(tokens, tags, strict=True) if token.strip() or tag != "O"]
        if any(not token.strip() for token, _ in kept):
            _refuse(where, "an entity tag on an empty token", "Each entity covers words.")
        blank_tokens += len(tokens) - len(kept)
        if kept:
            words, word_tags = zip(*kept, strict=True)
            sentences.append(RawSentence(words, word_tags, (number,) * len(kept)))
    if not sentences:
        raise DataError("A file of JSON lines holds at least one word.", f"{path}, without any", "Give another file.")
    return RawFile(path, tuple(sentences), {BLANK_TOKENS: blank_tokens} if blank_tokens else {})


def json_objects(path: Path, forms: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The objects in a file of JSON lines, each with its line's number, and file and line for messages.

    An empty line is passed over.

    Args:
        forms: the rule that a message begins with.

    Raises:
        DataError: a line is not one whole JSON object.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            received = f"{where}: {error}"
            if isinstance(error, json.JSONDecodeError):
                received = f"{where}, column {error.colno}: {error.msg}"  # its own text calls each line its line 1
            raise DataError(forms, received, "Put one whole JSON object on each line.") from error
        if not isinstance(entry, dict):
            raise DataError(forms, f"{where}: a {type(entry).__name__}", "Put one JSON object on each line.")
        yield number, where, entry


def _from_tokens(entry: dict[str, Any], where: str) -> tuple[list[str], list[str]]:
    tokens = _strings(entry["tokens"])
    tags = _strings(next((entry[key] for key in _TAG_KEYS if key in entry), None))
    if tokens is None or tags is None:
        _refuse(where, f"the keys {', '.join(entry)}", 'Write "tokens" and "tags" as lists of strings, tags by name.')
    if len(tokens) != len(tags):
        _refuse(where, f"{len(tokens)} tokens and {len(tags)} tags", "Give one tag for each token.")
    bad = [tag for tag in tags if not (is_tag(tag) or lacks_type(tag))]
    if bad:
        _refuse(where, f"the tag {bad[0]!r}", "A tag is O, or B, I, E or S with a hyphen and an entity type.")
    return tokens, tags


def _from_text(entry: dict[str, Any], where: str) -> tuple[list[str], list[str]]:
    text = entry.get("text")
    spans = next((entry[key] for key in _SPAN_KEYS if key in entry), None)
    if not isinstance(text, str) or not isinstance(spans, list):
        _refuse(where, f"the keys {', '.join(entry)}", _FORMS)
    words = words_of(text)
    word_at_start = {start: i for i, (start, _) in enumerate(words)}
    word_at_end = {end: i for i, (_, end) in enumerate(words)}
    tags = ["O"] * len(words)
    for span in spans:
        start, end, label = _span(span, where)
        first, last = word_at_start.get(start), word_at_end.get(end)
        if first is None or last is None or last < first:
            _refuse(
                where,
                f"the {label} span {start} to {end}, {text[start:end]!r}, of {text!r}",
                "A span starts where a word starts and ends where a word ends (the end is exclusive). Of a script "
                'without spaces (Thai, Lao, Khmer, Burmese) give "tokens" and "tags".',
            )
        if any(tag != "O" for tag in tags[first : last + 1]):
            _refuse(where, f"the {label} span {start} to {end}, which overlaps another", "Keep one of the two.")
        tags[first : last + 1] = [f"B-{label}", *[f"I-{label}"] * (last - first)]
    return [text[start:end] for start, end in words], tags


def _span(span: Any, where: str) -> tuple[int, int, str]:
    values = (span.get("start"), span.get("end"), span.get("label")) if isinstance(span, dict) else (None, None, None)
    start, end, label = values
    if not (type(start) is int and type(end) is int and isinstance(label, str) and is_tag(f"B-{label}")):
        _refuse(where, f"the span {json.dumps(span)}", 'Write {"start": 0, "end": 5, "label": "PER"}.')
    return start, end, label


def _strings(value: object) -> list[str] | None:
    """The value where it is a list of strings, None otherwise."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return value


def _refuse(where: str, received: str, remedy: str) -> NoReturn:
    raise DataError("Each line of a JSON lines file holds one sentence.", f"{where}: {received}", remedy)
