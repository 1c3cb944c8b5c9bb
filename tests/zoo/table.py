"""docs/layers.md: what kcost makes of each layer of Keras. Made of the rows that a whole run of the zoo wrote.

`make zoo` does both; by hand: `python -m tests.zoo.table FOLDER`, with the folder that KCOST_ZOO_ROWS named.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from kcost.core.plan import BACKENDS

FILE = Path(__file__).parents[2] / "docs" / "layers.md"

MODES = {
    "load": "load",
    "float32": "bench float32",
    "bfloat16": "bench bfloat16",
    "quantize dynamic": "dynamic",
    "quantize static": "static",
    "quantize weight-only": "weight-only",
    "quantize keras": "keras",
    "quantize bfloat16": "bfloat16",
    "export": "SavedModel",
    "export int8": "SavedModel of dynamic",
}
"""Mode -> heading of its column."""


def backends_of(mode: str) -> tuple[str, ...]:
    """The backends on which a mode is tried: TensorFlow writes a SavedModel, whichever backend stands beside."""
    return ("tensorflow",) if mode.startswith("export") else BACKENDS


NOT_MADE = "-"
"""For a layer of which Keras makes no model on any backend here."""

HEAD = """# What kcost makes of each layer of Keras

This page is made by `make zoo` and not written by hand. Each public layer class of `keras.layers` ({version}) stands in
a tiny model with weights that are not the defaults, and goes through each mode on each backend. What a model answers is
held against plain Keras: within {float32:g} in float32, and within {bfloat16:.0%} (bfloat16) or {int8:.0%} (int8) of
its root mean square. `make test` checks a part of this table, `make test-all` the whole.

A cell says what the layer became: `int8`, `bfloat16`, `float`, or `refused` with a reason that names the layer (below).
Where backends differ, each is told. The columns from `dynamic` to `bfloat16` are the modes of `kcost optimize`, each
saved and loaded again; `bench` is a round of `kcost bench`; `SavedModel` is `kcost export` of a model made on
tensorflow, read back through TensorFlow's C library.

"""


class Row(NamedTuple):
    """How one mode ended with one specimen on one backend."""

    specimen: str
    backend: str
    mode: str
    outcome: str
    """right, refused, wrong or traceback."""
    form: str
    """Of what is right: float, int8 or bfloat16; empty for the others."""
    reason: str
    """Of what is not right, and why a layer stays in float."""

    @property
    def word(self) -> str:
        """The word for it in a cell."""
        return self.form if self.outcome == "right" else self.outcome


class Table(NamedTuple):
    """The words in the cells of a page."""

    cells: Mapping[tuple[str, str, str], str]
    """(specimen, mode, backend) -> word."""

    @staticmethod
    def of_rows(rows: Iterable[Row]) -> Table:
        """The words for rows; of rows that came twice, the last."""
        return Table({(row.specimen, row.mode, row.backend): row.word for row in rows})

    @staticmethod
    def parse(text: str) -> Table:
        """The words on a page that `render` made."""
        cells: dict[tuple[str, str, str], str] = {}
        for line in text.splitlines():
            name, *words = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("| ") and len(words) == len(MODES) and name not in ("Layer", "---"):
                for mode, cell in zip(MODES, words, strict=True):
                    cells |= {(name, mode, backend): word for backend, word in _words(cell, mode).items()}
        return Table(cells)

    def of(self, row: Row) -> str | None:
        """The word in the cell of a row; None where there is none."""
        return self.cells.get((row.specimen, row.mode, row.backend))


@lru_cache(maxsize=1)
def committed() -> Table:
    """The table in docs/layers.md."""
    return Table.parse(FILE.read_text(encoding="utf-8"))


def render(rows: Sequence[Row], not_made: Mapping[str, str], head: str) -> str:
    """The page: the table, why what is refused is, and why layers stay in float.

    Args:
        rows: of every specimen, mode and backend.
        not_made: class names that have no rows, and why.
        head: the text above the table.
    """
    table = Table.of_rows(rows)
    names = sorted({row.specimen for row in rows} | not_made.keys())
    lines = [_line(["Layer", *MODES.values()]), _line(["---"] * (len(MODES) + 1))]
    lines += [_line([name, *(_cell(table, name, mode) for mode in MODES)]) for name in names]
    counts = [_counted(rows, backend) for backend in BACKENDS if any(row.backend == backend for row in rows)]
    refused = [
        f"- {reason}: {_places(rows_of_reason)}" for reason, rows_of_reason in _by_reason(rows, "refused").items()
    ]
    refused += [f"- not made: {name}: {reason}" for name, reason in sorted(not_made.items())]
    kept = [f"- {reason}: {_names(rows_of_reason)}" for reason, rows_of_reason in _by_reason(rows, "float").items()]
    top = [head + "\n".join(counts), "", *lines]
    return "\n".join([*top, "", "## Refused", "", *refused, "", "## In float", "", *kept, ""])


def _counted(rows: Sequence[Row], backend: str) -> str:
    """How many layers and modes ended in each way on a backend."""
    ends = Counter(row.outcome for row in rows if row.backend == backend)
    counts = ", ".join(f"{ends[outcome]} {outcome}" for outcome in ("right", "refused", "wrong", "traceback"))
    return f"- {backend}: {ends.total()} of layer and mode: {counts}"


def _cell(table: Table, name: str, mode: str) -> str:
    by_word: dict[str, list[str]] = {}
    for backend in BACKENDS:
        word = table.cells.get((name, mode, backend))
        if word is not None:
            by_word.setdefault(word, []).append(backend)
    if len(by_word) == 1 and len(next(iter(by_word.values()))) == len(backends_of(mode)):
        return next(iter(by_word))
    return "; ".join(f"{', '.join(backends)}: {word}" for word, backends in by_word.items()) or NOT_MADE


def _words(cell: str, mode: str) -> dict[str, str]:
    if cell == NOT_MADE:
        return {}
    if ":" not in cell:
        return dict.fromkeys(backends_of(mode), cell)
    parts = [part.split(":") for part in cell.split(";")]
    return {backend.strip(): word.strip() for backends, word in parts for backend in backends.split(",")}


def _by_reason(rows: Sequence[Row], form: str) -> dict[str, list[Row]]:
    by_reason: dict[str, list[Row]] = {}
    for row in rows:
        if row.word == form and row.reason and (form != "float" or row.mode.startswith("quantize")):
            by_reason.setdefault(_plain(row.reason), []).append(row)
    return dict(sorted(by_reason.items()))


def _plain(reason: str) -> str:
    """A reason without names of folders and of this one model's parts, fit for a line of Markdown."""
    reason = re.sub(r"\S*/(?=[\w-]+\.keras)", "", reason)
    return reason.replace("zoo_", "").replace("|", "\\|").replace("<", "&lt;").strip().rstrip(".:")


def _places(rows: Sequence[Row]) -> str:
    """Which layers, on which backends, in which modes."""
    by_layer: dict[str, list[Row]] = {}
    for row in rows:
        by_layer.setdefault(row.specimen, []).append(row)
    places = []
    for name, rows_of_layer in sorted(by_layer.items()):
        backends = [backend for backend in BACKENDS if any(row.backend == backend for row in rows_of_layer)]
        where = "" if len(backends) == len(BACKENDS) else f" on {', '.join(backends)}"
        tried = [mode for mode in MODES if set(backends) & set(backends_of(mode))]
        modes = [mode for mode in tried if any(row.mode == mode for row in rows_of_layer)]
        which = "all modes" if modes == tried else ", ".join(MODES[mode] for mode in modes)
        places.append(f"{name}{where} ({which})")
    return "; ".join(places)


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({row.specimen for row in rows}))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def read_rows(folder: Path) -> list[Row]:
    """The rows that a run of the zoo wrote, of all backends; of those that came twice, the last."""
    lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [Row(**json.loads(line)) for line in lines]
    return list({(row.specimen, row.mode, row.backend): row for row in rows}.values())


def main(folder: Path) -> None:
    """Writes docs/layers.md."""
    import keras

    from .specimens import MadeElsewhereError, NotMadeError, layer_classes, layer_specimen
    from .trial import ONE_LAYER

    rows = read_rows(folder)
    not_made = {}
    for name in layer_classes().keys() - {row.specimen for row in rows}:
        try:
            layer_specimen(name)
        except (NotMadeError, MadeElsewhereError) as error:
            not_made[name] = str(error)
    head = HEAD.format(version=f"Keras {keras.__version__}", **ONE_LAYER._asdict())
    FILE.write_text(render(rows, not_made, head), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
