"""Where a model is worse than elsewhere: scores of slices, the worst one, and slices that were searched for."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from pydantic import Field

from kcost.core.predictions import SplitPredictions
from kcost.core.schema import Record
from kcost.core.scores import f1_of
from kcost.risk.figures import Figure, bootstrapped
from kcost.risk.scores import main_score

LEAST = 30
"""Fewest examples of a slice: fewer say too little to be scored."""

MOST_VALUES = 50
"""A column with more different values is no column of slices: each would be its own."""

SURE = 0.05
TOLD = 10

Columns = Mapping[str, np.ndarray]
"""Name -> the value of each example, shape (n,), strings."""


class Slice(Record):
    """Examples that share a value, or two."""

    name: str = Field(description="such as `length=long` or `length=long and source=web`")
    share: float = Field(description="of all examples")
    score: Figure


class SearchedSlice(Record):
    """A slice in which something happens more often than outside of it, beyond what searching explains."""

    name: str
    examples: int
    rate: float = Field(description="share of its examples in which it happens")
    rate_elsewhere: float
    p_value: float = Field(description="of Fisher's exact test, times what Holm's correction asks for, at most 1")


class Search(Record):
    """What a search among slices of one or two columns says."""

    looked_at: int = Field(description="slices with enough examples, which the correction counts")
    least_examples: int
    slices: tuple[SearchedSlice, ...] = Field(description="those at 5% after the correction, the surest first")


class Slices(Record):
    """The scores of all slices of one column, the worst first, and what a search says of wrong examples."""

    table: tuple[Slice, ...]
    skipped: tuple[str, ...] = Field(description="columns and slices that are not scored, and why")
    search: Search

    @property
    def worst(self) -> Slice | None:
        """The slice with the lowest score, None without one. As it is chosen, it looks worse than it is."""
        return self.table[0] if self.table else None


def quartiles(name: str, numbers: np.ndarray) -> np.ndarray:
    """A column of slices from numbers, shape (n,), strings: a quarter is named after its ends, such as `12 to 17`."""
    edges = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75]))
    places = np.searchsorted(edges, numbers, side="left")
    names = {p: f"{numbers[places == p].min():.4g} to {numbers[places == p].max():.4g}" for p in np.unique(places)}
    return np.array([names[p] for p in places])


def slices_of(answers: SplitPredictions, columns: Columns, unit: str, types: tuple[str, ...] = ()) -> Slices:
    """Scores of each value of each column on a split, and of each entity type of a tagger.

    Args:
        columns: a value an example of the split that was predicted, in its order.
        types: of the entity counts.
    """
    table, skipped = [], []
    usable = {}
    for name, values in columns.items():
        different = np.unique(values)
        if len(different) > MOST_VALUES or len(different) < 2:
            skipped.append(f"{name}: {len(different):,} different values; slices have 2 to {MOST_VALUES}")
            continue
        usable[name] = values
        for value in different:
            chosen = values == value
            if chosen.sum() < LEAST:
                skipped.append(f"{name}={value}: {int(chosen.sum())} examples, and {LEAST} are needed")
                continue
            score = main_score(answers, unit, chosen)
            table.append(Slice(name=f"{name}={value}", share=float(chosen.mean()), score=score))
    if answers.entity_counts is not None:
        for i, kind in enumerate(types):
            counts = answers.entity_counts[:, i]
            has = int((counts.sum(1) > 0).sum())
            if has < LEAST:
                skipped.append(f"type={kind}: in {has} {unit}, and {LEAST} are needed")
                continue
            score = bootstrapped("entity_f1", counts, f1_of, unit, lowest=0.0, highest=1.0)
            table.append(Slice(name=f"type={kind}", share=1.0, score=score))
    wrong = np.zeros(len(answers), bool)
    np.logical_or.at(wrong, answers.rows, ~answers.right)
    if answers.entity_counts is not None:
        wrong = answers.entity_counts[:, :, 1:].sum((1, 2)) > 0
    return Slices(
        table=tuple(sorted(table, key=lambda s: (s.score.value, s.name))),
        skipped=tuple(skipped),
        search=search(wrong, usable),
    )


def search(happens: np.ndarray, columns: Columns, least: int = LEAST) -> Search:
    """Slices of one column, or of two together, in which something happens more often than elsewhere.

    Each is tested by Fisher's exact test, one-sided, and Holm's correction keeps the chance of any false find at 5%
    over all that were looked at, whatever they have in common.

    Sources: Fisher (1935), The Design of Experiments; Holm (1979), Scandinavian Journal of Statistics 6, 65-70.

    Args:
        happens: of each example, shape (n,), bool.
        columns: as `slices_of` has them.
        least: fewest examples of a slice.
    """
    from scipy.stats import hypergeom

    coded = {n: np.unique(v, return_inverse=True) for n, v in columns.items() if len(v)}
    candidates: list[tuple[str, int, int]] = []
    for name, (values, codes) in coded.items():
        sizes = np.bincount(codes, minlength=len(values))
        hits = np.bincount(codes, weights=happens, minlength=len(values)).astype(int)
        candidates += [(f"{name}={values[i]}", sizes[i], hits[i]) for i in np.flatnonzero(sizes >= least)]
    for (first, (a, in_a)), (second, (b, in_b)) in combinations(coded.items(), 2):
        both = in_a * len(b) + in_b
        sizes = np.bincount(both, minlength=len(a) * len(b))
        hits = np.bincount(both, weights=happens, minlength=len(sizes)).astype(int)
        for i in np.flatnonzero(sizes >= least):
            name = f"{first}={a[i // len(b)]} and {second}={b[i % len(b)]}"
            candidates.append((name, sizes[i], hits[i]))
    candidates = [c for c in candidates if c[1] < len(happens)]
    if not candidates:
        return Search(looked_at=0, least_examples=least, slices=())
    size, hit = np.array([c[1] for c in candidates]), np.array([c[2] for c in candidates])
    total, everywhere = int(happens.sum()), len(happens)
    plain = hypergeom.sf(hit - 1, everywhere, total, size)
    order = np.argsort(plain, kind="stable")
    steps = np.minimum(1.0, np.maximum.accumulate(plain[order] * (len(plain) - np.arange(len(plain)))))
    slices_at_risk = [
        SearchedSlice(
            name=candidates[i][0],
            examples=int(size[i]),
            rate=float(hit[i] / size[i]),
            rate_elsewhere=float((total - hit[i]) / (everywhere - size[i])),
            p_value=float(corrected),
        )
        for i, corrected in zip(order, steps, strict=True)
        if corrected <= SURE
    ]
    return Search(looked_at=len(candidates), least_examples=least, slices=tuple(slices_at_risk[:TOLD]))
