"""Reading of CoNLL files: one word a line with its tag, an empty line between sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kcost.core.errors import DataError
from kcost.data.tags import is_tag, lacks_type
from kcost.data.text_files import read_text

BLANK_TOKENS = "lines with an empty token and the tag O"
COMMENTS = "comment lines"
NO_WORDS = "lines of CoNLL-U that are no words (multiword tokens and empty nodes)"

_KEYS = "sent_id|text|text_[a-z]+|translit|lang|source|s_type|orig_file_sentence|global[.]columns|global[.]Entity"
_KEYED = re.compile(
    rf"#[ \t]*(?:new(?:doc|par)(?:[ \t]+id)?[ \t]*(?:=.*)?|(?:{_KEYS})[ \t]*=.*)|# [\w.\[\]:-]+[ \t]*=.*"
)
"""A comment by its form: a key of CoNLL-U, or any key after a space and before an equals sign."""

_NO_WORD = re.compile(r"\d+(?:-\d+|\.\d+)")
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
    """The sentences of one file, and what was left out of it: kind of line -> how many.

    A tag may lack its entity type here (B, I): `build_tag_set` refuses these, once for all files.
    """

    path: Path
    sentences: tuple[RawSentence, ...]
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Row:
    """A line with columns, those that are empty at its end left out."""

    number: int
    line: str
    columns: tuple[str, ...]

    @property
    def has_tag(self) -> bool:
        return len(self.columns) > 1 and _may_be_tag(self.columns[-1].strip())


def read_conll(path: Path) -> RawFile:
    """Reads a CoNLL file: token first, tag last; or index, token, tag, ... as Universal NER writes it.

    Lines of white space and `-DOCSTART-` lines end a sentence. Left out and counted are lines with the tag O and an
    empty token (some corpora hold emoji that were stripped), multiword tokens and empty nodes of CoNLL-U, and
    comments: a `#` alone, a known key of CoNLL-U (`# sent_id = 1`, `#newpar`), and `# ...` where the line is no
    row of the file. So `#newparty O` is a word, and `# O` too. Empty columns at the end of a line do not count.

    Raises:
        DataError: a line without a tag, with a tag that is none, with an entity tag on an empty token, a file
            that is no text, or a file without any token. The message names the line.
    """
    lines = list(_rows(read_text(path)))
    width = _usual_width(row for row in lines if row is not None)
    left_out: Counter[str] = Counter()
    groups: list[list[_Row]] = [[]]
    for row in lines:
        if row is None:
            groups.append([])
        elif _is_comment(row, width):
            left_out[COMMENTS] += 1
        else:
            groups[-1].append(row)
    indexed = _is_indexed(groups)
    tag_at = _tag_column([row for group in groups for row in group]) if indexed else -1
    sentences: list[RawSentence] = []
    for group in groups:
        words: list[tuple[str, str, int]] = []
        for row in group:
            if indexed and _NO_WORD.fullmatch(row.columns[0]):
                left_out[NO_WORDS] += 1
                continue
            token, tag = (row.columns[1], _tag(row, tag_at, path)) if indexed else _word(row, path, width)
            if token.strip():
                words.append((token, tag, row.number))
            elif tag == "O":
                left_out[BLANK_TOKENS] += 1
            else:
                received = f"{path}, line {row.number}: the tag {tag} on an empty token"
                raise DataError(_SHAPE_RULE, received, "Correct that line.")
        if words:
            sentences.append(RawSentence(*zip(*words, strict=True)))
    if not sentences:
        raise DataError("A CoNLL file holds at least one token.", f"{path}, without any", "Give another file.")
    return RawFile(path, tuple(sentences), dict(left_out))


def _rows(text: str) -> Iterator[_Row | None]:
    """The lines with something on them; None for one that ends a sentence."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            yield None
            continue
        line = line.removesuffix("\r")
        columns = line.split("\t") if "\t" in line else [column for column in line.split(" ") if column]
        while len(columns) > 1 and not columns[-1].strip():
            columns.pop()
        yield _Row(number, line, tuple(columns))


def _usual_width(rows: Iterable[_Row]) -> int:
    """How many columns most rows of a file have."""
    widths = Counter(len(row.columns) for row in rows if not row.line.startswith("#"))
    return widths.most_common(1)[0][0] if widths else 2


def _is_comment(row: _Row, width: int) -> bool:
    """Whether a line that begins with # is none of the file's rows; see `read_conll`."""
    if row.line.strip() == "#" or _KEYED.fullmatch(row.line):
        return True
    return row.line.startswith("# ") and not (row.has_tag and len(row.columns) == width)


def _is_indexed(groups: list[list[_Row]]) -> bool:
    """True where the first column counts the tokens of each sentence from 1, and two columns or more follow."""
    seen = False
    for group in groups:
        rows = [row for row in group if not _NO_WORD.fullmatch(row.columns[0])]
        if any(len(row.columns) < 3 for row in group):
            return False
        if [row.columns[0] for row in rows] != [str(i) for i in range(1, len(rows) + 1)]:
            return False
        seen = seen or bool(rows)
    return seen


def _tag_column(rows: list[_Row]) -> int:
    """Where the tag stands in an indexed file: after the token, as Universal NER has it, or last."""
    after_token = sum(_may_be_tag(row.columns[2].strip()) for row in rows)
    return 2 if 2 * after_token > len(rows) else -1


def _word(row: _Row, path: Path, width: int) -> tuple[str, str]:
    """Token and tag of a row: its first and last columns. A row that is too narrow for the file has lost its tag."""
    emptied = row.line.count("\t") >= len(row.columns)
    if len(row.columns) < 2 or (emptied and len(row.columns) < width):
        raise DataError(_SHAPE_RULE, f"{path}, line {row.number}: {row.line.strip()!r}", "Add the tag, O for none.")
    return row.columns[0], _tag(row, -1, path)


def _tag(row: _Row, at: int, path: Path) -> str:
    tag = row.columns[at].strip()
    if not _may_be_tag(tag):
        raise DataError(_TAG_RULE, f"{path}, line {row.number}: tag {tag!r}", "Correct that line.")
    return tag


def _may_be_tag(text: str) -> bool:
    return is_tag(text) or lacks_type(text)
