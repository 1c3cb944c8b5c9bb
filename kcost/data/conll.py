"""Reading of CoNLL files: one word a line with its tag, an empty line between sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kcost.core.errors import DataError
from kcost.data.tags import is_tag

_COMMENT = re.compile(r"# ?(newdoc|newpar|[\w.\[\]-]+ =)")
_SHAPE_RULE = "Each line of a CoNLL file holds a token and its tag, between tabs or spaces."
_TAG_RULE = "A tag is O, or B, I, E or S with a hyphen and an entity type, such as B-PER."


@dataclass(frozen=True)
class RawSentence:
    """A sentence as its file has it: tags in the file's own scheme, and the line of each token for messages."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    lines: tuple[int, ...]


@dataclass(frozen=True)
class RawFile:
    """The sentences of one file, and how many lines with an empty token and the tag O were left out."""

    path: Path
    sentences: tuple[RawSentence, ...]
    blank_tokens: int = 0


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        DataError: the file cannot be opened, or holds a byte that is not UTF-8; the message names its line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError("A data file can be read.", f"{path}: {error.strerror}", "Check its permissions.") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            "Text files are in UTF-8.",
            received=f"{path}, line {line}: byte 0x{raw[error.start]:02x}",
            remedy="Convert the file, for example: iconv -f latin1 -t utf-8 FILE",
        ) from error


def read_conll(path: Path) -> RawFile:
    """Reads a CoNLL file: token first, tag last; or index, token, tag, ... as Universal NER writes it.

    Comment lines (`# sent_id = ...`), `-DOCSTART-` lines and lines of white space only separate or are skipped.
    A line with a tag O and an empty token (some corpora hold emoji that were stripped) is left out and counted.

    Raises:
        DataError: a line without a tag, with a tag that is none, with an entity tag on an empty token, a file
            that is not UTF-8, or a file without any token. The message names the line.
    """
    rows: list[tuple[int, list[str]]] = [(0, [])]
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            rows.append((number, []))
        elif "\t" in line:
            rows.append((number, line.split("\t")))
        elif not _COMMENT.match(line):
            rows.append((number, [column for column in line.split(" ") if column]))
    token_at, tag_at = (1, 2) if _is_indexed(rows) else (0, -1)

    sentences: list[RawSentence] = []
    words: list[tuple[str, str, int]] = []
    blank_tokens = 0
    for number, columns in [*rows, (0, [])]:
        if not columns:
            if words:
                sentences.append(RawSentence(*zip(*words, strict=True)))
            words = []
            continue
        if len(columns) < max(2, tag_at + 1):
            raise DataError(_SHAPE_RULE, f"{path}, line {number}: {' '.join(columns)!r}", "Add the tag, O for none.")
        token, tag = columns[token_at], columns[tag_at].strip()  # strip: a line may end with a carriage return
        if not is_tag(tag):
            raise DataError(_TAG_RULE, f"{path}, line {number}: tag {tag!r}", "Correct that line.")
        if token.strip():
            words.append((token, tag, number))
        elif tag == "O":
            blank_tokens += 1
        else:
            received = f"{path}, line {number}: the tag {tag} on an empty token"
            raise DataError(_SHAPE_RULE, received, "Correct that line.")
    if not sentences:
        raise DataError("A CoNLL file holds at least one token.", f"{path}, without any", "Give another file.")
    return RawFile(path, tuple(sentences), blank_tokens)


def _is_indexed(rows: list[tuple[int, list[str]]]) -> bool:
    """True where the first column counts the tokens of each sentence from 1, and two columns or more follow."""
    expected, seen = 1, False
    for _, columns in rows:
        if not columns:
            expected = 1
            continue
        if len(columns) < 3 or columns[0] != str(expected):
            return False
        expected, seen = expected + 1, True
    return seen
