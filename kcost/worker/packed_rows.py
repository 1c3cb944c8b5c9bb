"""Rows of several lengths, end to end: as PACKED_SIGNATURE takes them, to be tried and compared with each by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kcost.core.conversion import ROW_LENGTHS


def packed_rows(rows: Sequence[Mapping[str, np.ndarray]], behind: int = 0) -> dict[str, np.ndarray]:
    """The inputs of PACKED_SIGNATURE by name, ROW_LENGTHS with them.

    Args:
        rows: the inputs of each row by name, (length,) each; at least one row.
        behind: places that belong to no row.

    Examples:
        >>> packed_rows([{"x": np.array([1, 2])}, {"x": np.array([3])}], behind=1)
        {'x': array([1, 2, 3, 0]), 'row_lengths': array([2, 1], dtype=int32)}
    """
    lines = {
        name: np.concatenate([*(row[name] for row in rows), np.zeros(behind, array.dtype)])
        for name, array in rows[0].items()
    }
    lengths = [len(next(iter(row.values()))) for row in rows]
    return {**lines, ROW_LENGTHS: np.asarray(lengths, np.int32)}


def cut_rows(batch: Mapping[str, np.ndarray], count: int) -> list[dict[str, np.ndarray]]:
    """Rows of a batch, each a place shorter than the one before, but for a row of one place.

    Args:
        batch: inputs by name, (rows, length) each; where it has fewer rows they are taken again.
        count: of rows.
    """
    rows, longest = next(iter(batch.values())).shape
    return [{name: array[i % rows, : max(1, longest - i)] for name, array in batch.items()} for i in range(count)]
