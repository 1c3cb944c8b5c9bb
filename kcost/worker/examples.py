"""Writes test examples as a model takes them: pixels in its scale, texts cut by its vocabulary."""

from __future__ import annotations

import io

import numpy as np

from kcost.core.chosen_rows import chosen_rows
from kcost.core.request import ExamplesAnswer, ExamplesRequest
from kcost.core.schema import write_bytes
from kcost.worker.model_and_data import open_with_data


def run(request: ExamplesRequest) -> ExamplesAnswer:
    """Writes the file that the request names.

    Raises:
        InputError: the model and the data do not fit together.
        ArtifactError: the model cannot be loaded safely.
        StorageError: the file cannot be written.
    """
    opened = open_with_data(request.model, request.data, None)
    task = opened.task
    total = len(task.labels("test"))
    rows = chosen_rows(total, request.count, request.seed)
    content = io.BytesIO()
    np.savez(content, **task.examples("test", rows))  # type: ignore[arg-type]  # numpy types its own flag into **kwds
    write_bytes(request.file, content.getvalue())
    return ExamplesAnswer(
        dataset=opened.dataset,
        unit=task.unit,
        total=total,
        written=len(rows),
        pixels=None if task.pixels is None else str(task.pixels),
    )
