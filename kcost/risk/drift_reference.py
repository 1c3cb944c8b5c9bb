"""What a model was given and what it answered before it went live: the reference that traffic is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from kcost.core.schema import VERSIONS, Record
from kcost.risk.drift import embedding_distances, main_directions
from kcost.risk.drift_usd import Band

MOST_BINS = 20
MOST_CATEGORIES = 200
QUANTILES = 257
DIRECTIONS = 8
BASIS_ROWS = 1500
LONGEST_VECTOR = 4096

Source = Literal["input", "output"]


class NumberReference(Record):
    """A number of each row, such as the confidence."""

    kind: Literal["number"] = "number"
    name: str
    source: Source
    step: float = Field(gt=0, description="numbers are rounded to multiples of it: digits that no answer rests on")
    edges: tuple[float, ...] = Field(description="inner edges of the bins, ascending: near quantiles of the reference")
    counts: tuple[int, ...] = Field(description="rows by bin; the last bin holds NaN and infinities")
    quantiles: tuple[float, ...] = Field(description="of finite rows, evenly from the least to the largest")

    def codes(self, values: np.ndarray) -> np.ndarray:
        """The bin of each number, shape (n,), int64."""
        places = np.searchsorted(self.edges, np.round(values / self.step) * self.step, side="right")
        return np.where(np.isfinite(values), places, len(self.counts) - 1)

    @property
    def deviation(self) -> float:
        """Standard deviation of the reference, from its quantiles; 0 where all rows are equal."""
        return float(np.std(self.quantiles)) if self.quantiles else 0.0


class CategoryReference(Record):
    """A name of each row, such as the class that was answered."""

    kind: Literal["category"] = "category"
    name: str
    source: Source
    names: tuple[str, ...] = Field(description="the most frequent first; all others are one more")
    counts: tuple[int, ...] = Field(description="rows by name, and of others")

    def codes(self, values: np.ndarray) -> np.ndarray:
        """The place of each name, shape (n,), int64."""
        places = {name: i for i, name in enumerate(self.names)}
        return np.array([places.get(str(v), len(self.names)) for v in values], np.int64)


Feature = Annotated[NumberReference | CategoryReference, Field(discriminator="kind")]


class VectorBasis(Record):
    """The middle and the main directions of an input: distances from them are features."""

    centre: tuple[float, ...]
    components: tuple[tuple[float, ...], ...]
    spread: tuple[float, ...]

    def distances(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Along and off the main directions, as `kcost.risk.drift.embedding_distances`."""
        return embedding_distances(vectors, np.array(self.centre), np.array(self.components), np.array(self.spread))


class Pieces(Record):
    """What token ids mean, as far as features need it. Runs are (first, last) ids, both included."""

    unknown: int
    special: tuple[int, ...]
    continuation: tuple[tuple[int, int], ...] = Field(description="pieces that go on with a word")
    punctuation: tuple[tuple[int, int], ...]


class Reading(Record):
    """Where features are taken from in a request and its answer."""

    kind: Literal["multiclass", "binary", "tags"]
    logits: bool
    threshold: float | None = Field(default=None, description="of a binary output")
    output: str | None = Field(default=None, description="its name in the answer; None where there is one")
    form: Literal["pixels", "tokens", "arrays"]
    input: str | None = Field(default=None, description="that pixels, numbers or token ids are in")
    mask: str | None = Field(default=None, description="1 where a token is")
    shape: tuple[int, ...] = Field(default=(), description="of one row of pixels or numbers")
    pieces: Pieces | None = None
    basis: VectorBasis | None = None


class Reference(Record):
    """`reference.json`."""

    schema_: int = Field(default=VERSIONS["reference"], alias="schema")
    model: str
    model_sha256: str
    dataset: str
    split: str
    rows: int
    unit: str = Field(description="what a row is")
    label_names: tuple[str, ...]
    reading: Reading
    features: tuple[Feature, ...]
    bands: tuple[Band, ...] = Field(description="errors by confidence")
    notes: tuple[str, ...] = ()


Columns = Mapping[str, np.ndarray]
"""Feature -> a value of each row: floats for numbers, strings for names."""


def number_reference(name: str, source: Source, values: np.ndarray) -> NumberReference:
    """Bins and quantiles of numbers, shape (n,).

    Examples:
        >>> number_reference("length", "input", np.array([1.0, 1.0, 2.0, 3.0])).counts
        (0, 2, 1, 1, 0, 0)
    """
    finite = np.sort(values[np.isfinite(values)].astype(np.float64))
    deviation = float(finite.std()) if len(finite) else 0.0
    largest = float(np.abs(finite).max()) if len(finite) else 0.0
    # A hundredth to a tenth of the deviation: the last digits of a number differ between backends, and clients round.
    step = 10.0 ** (math.floor(math.log10(max(deviation, 1e-6 * largest, 1e-9))) - 1)
    edges: np.ndarray = np.array([])
    if len(finite):
        units = np.round(finite / step)
        inner = np.quantile(units, np.arange(1, MOST_BINS) / MOST_BINS, method="inverted_cdf")
        # Below the least and beyond the largest are bins of their own: what never came before is seen as such.
        edges = (np.unique([units[0], *inner, units[-1] + 1]) - 0.5) * step
    made = NumberReference(name=name, source=source, step=step, edges=tuple(edges), counts=(), quantiles=())
    counts = np.bincount(np.where(np.isfinite(values), made.codes(values), len(edges) + 1), minlength=len(edges) + 2)
    quantiles = np.quantile(finite, np.linspace(0, 1, min(QUANTILES, len(finite)))) if len(finite) else []
    return made.model_copy(update={"counts": tuple(counts.tolist()), "quantiles": tuple(map(float, quantiles))})


def category_reference(name: str, source: Source, values: np.ndarray) -> CategoryReference:
    """Counts of names, shape (n,), strings; beyond the 200 most frequent they are counted together.

    Examples:
        >>> category_reference("class", "output", np.array(["a", "b", "a"])).counts
        (2, 1, 0)
    """
    names, counts = np.unique(values.astype(str), return_counts=True)
    order = np.lexsort((names, -counts))
    kept, rest = order[:MOST_CATEGORIES], order[MOST_CATEGORIES:]
    return CategoryReference(
        name=name,
        source=source,
        names=tuple(map(str, names[kept])),
        counts=(*counts[kept].tolist(), int(counts[rest].sum())),
    )


def features_of(columns: Mapping[Source, Columns]) -> tuple[NumberReference | CategoryReference, ...]:
    """A reference of each column. A number that is the same in all rows is kept: live, it may not be."""
    made: list[NumberReference | CategoryReference] = []
    for source, by_name in columns.items():
        for name, values in by_name.items():
            if values.dtype.kind in "US":
                made.append(category_reference(name, source, values))
            else:
                made.append(number_reference(name, source, values))
    return tuple(made)


def vector_basis(vectors: np.ndarray) -> VectorBasis:
    """The basis of vectors, shape (n, d) with d of at most 4,096.

    Features are to be taken of other rows: those that a basis was made of lie nearer to it.
    """
    centre, components, spread = main_directions(vectors, DIRECTIONS)
    # Nine digits are enough for distances, and a third of the file.
    return VectorBasis(
        centre=_rounded(centre), components=tuple(_rounded(row) for row in components), spread=_rounded(spread)
    )


def _rounded(numbers: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{v:.9g}") for v in numbers)
