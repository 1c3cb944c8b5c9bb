"""What is known of each cell's answers before it may be ranked. A fault of one cell's answers stays with that cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kcost.core.answer_scores import not_finite
from kcost.core.errors import in_a_line
from kcost.core.result import CellResult, ModelEntry
from kcost.cost.quality import Arrays, Quality, QualityCheck, ReadOutputs, reference_cell

NUMBERS = "fiub"
"""Kinds of dtypes, as numpy names them, of answers that can be compared."""


class Judgement(NamedTuple):
    """What a cell answers, beside the reference."""

    quality: Quality = Quality()
    not_judged: str | None = None
    """Why its answers could not be compared."""
    not_finite: str | None = None
    """Which of its outputs hold NaN or infinite numbers, and how many."""


class Judge:
    """Judges the cells of one model, one at a time.

    The reference is the first cell, in the order of `reference_cell`, whose answers can be read and compared.

    Args:
        cells: the measured ones of the model.
        read_outputs: gives the stored arrays of a cell; whatever it raises costs that cell its judgement.
    """

    def __init__(self, entry: ModelEntry, cells: Sequence[CellResult], read_outputs: ReadOutputs) -> None:
        self._read = read_outputs
        self.reference: CellResult | None = None
        self._check = QualityCheck(entry, None)
        candidates = [c for c in cells if c.spec.phase == "inference" and c.outputs_file is not None]
        while (chosen := reference_cell(candidates)) is not None:
            candidates.remove(chosen)
            try:
                arrays = self._arrays(chosen)
                check = QualityCheck(entry, arrays)
                check.of(arrays, chosen.preparation)
            except Exception:  # told where the cell itself is judged
                continue
            self.reference, self._check = chosen, check
            break
        self.not_finite = None if self.reference is None else self.of(self.reference).not_finite
        """Which outputs of the reference are not finite: then nothing of the model can be held against it."""

    def of(self, cell: CellResult) -> Judgement:
        """What is known of a cell's answers; a training step has none."""
        if cell.spec.phase == "training":
            return Judgement()
        if cell.preparation is not None and cell.preparation.not_scored is not None:
            return Judgement(not_judged=cell.preparation.not_scored, not_finite=_not_finite(cell, None))
        try:
            arrays = self._arrays(cell)
            return Judgement(self._check.of(arrays, cell.preparation), not_finite=_not_finite(cell, arrays))
        except Exception as error:  # arrays of any shape and content may lie there
            return Judgement(not_judged=in_a_line(error), not_finite=_not_finite(cell, None))

    def _arrays(self, cell: CellResult) -> Arrays | None:
        """The arrays of a cell. Raises TypeError where one holds no numbers, and whatever reading raises."""
        arrays = self._read(cell)
        for name, array in (arrays or {}).items():
            if array.dtype.kind not in NUMBERS:
                raise TypeError(f"its {name} are of dtype {array.dtype}, which are no real numbers")
        return arrays


def _not_finite(cell: CellResult, arrays: Arrays | None) -> str | None:
    done = cell.preparation
    if done is not None and (done.not_finite is not None or done.answers is not None):
        return done.not_finite
    outputs = None if arrays is None else arrays.get("outputs")
    fault = None if outputs is None else not_finite(["output"], [outputs])
    return None if fault is None else f"{fault}, over the probe"
